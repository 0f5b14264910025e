/* Stamps from raw pixels to network input, one stamp after the other, all steps while its pixels are in the cache.
 *
 * The same arithmetic as the torch code that calls it (tasks.normalisation, tasks.gaps, tasks.domain, tasks.psf_extent,
 * cutouts.centring, cutouts.psf), to float32 rounding. pixels/native.py says what every function takes; nothing here
 * allocates more than one stamp, keeps a state or knows Python, so that any number of threads may call it.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
/* the widest vectors that this processor has, chosen when the library is loaded */
#define VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORS
#endif
#define INLINE static inline __attribute__((always_inline))

enum { FEW = 16, SPARSE = 4 }; /* as in tasks.normalisation */
static const float MAD_TO_SIGMA = 1.482602218505602f, MEAN_TO_SIGMA = 1.2533141373155f;

/* an array (stamp, band, row, pixel): pixels of a row lie one after the other; strides in elements */
typedef struct {
    const void *data;
    int64_t stamp, band, row;
} Planes;

typedef struct {
    int64_t stamps, bands, height, width;
} Shape;

INLINE const float *floats(const Planes *planes, int64_t stamp, int64_t band) {
    return (const float *)planes->data + stamp * planes->stamp + band * planes->band;
}

INLINE const uint8_t *bytes(const Planes *planes, int64_t stamp, int64_t band) {
    return (const uint8_t *)planes->data + stamp * planes->stamp + band * planes->band;
}

/* ---- medians ------------------------------------------------------------------------------------------------- */

INLINE int32_t key_of(float value) { /* an integer in the order of the values */
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

INLINE float value_of(int32_t key) {
    int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* how many keys are at most `middle`, the largest of these, and the smallest of the others */
VECTORS int64_t astroml_parted(const int32_t *keys, int64_t count, int32_t middle, int32_t *below, int32_t *above) {
    int32_t most = INT32_MIN, least = INT32_MAX, number = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t key = keys[i], under = -(int32_t)(key <= middle); /* all bits or none: the loop stays free of branches */
        int32_t low = (key & under) | (INT32_MIN & ~under), high = (key & ~under) | (INT32_MAX & under);
        number -= under;
        most = low > most ? low : most;
        least = high < least ? high : least;
    }
    *below = most;
    *above = least;
    return number;
}

/* the lower median of values without NaN, 0 of none: the bracket about it is made smaller until one value is left */
VECTORS float astroml_median(const float *values, int64_t count, int32_t *keys) {
    if (count == 0) return 0.0f;
    int32_t low = INT32_MAX, high = INT32_MIN;
    for (int64_t i = 0; i < count; i++) {
        int32_t key = key_of(values[i]);
        keys[i] = key;
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    const int64_t rank = (count - 1) / 2;
    int64_t before = 0, through = count; /* values below `low`, and up to `high` */
    for (int round = 0; low < high && rank > before && rank < through - 1; round++) {
        int32_t middle = low + (int32_t)(((int64_t)high - low) / 2), below, above;
        if (round % 3 < 2) {
            double from = value_of(low), to = value_of(high);
            double part = ((double)(rank - before) + 0.5) / (double)(through - before);
            double guess = from + (to - from) * part;
            if (guess > from && guess < to) middle = key_of((float)guess);
        }
        if (middle >= high) middle = high - 1;
        if (middle < low) middle = low;
        int64_t number = astroml_parted(keys, count, middle, &below, &above);
        if (number > rank) {
            high = below;
            through = number;
        } else {
            low = above;
            before = number;
        }
    }
    return value_of(rank >= through - 1 ? high : low);
}

/* ---- one band of one stamp ------------------------------------------------------------------------------------- */

typedef struct {
    const float *pixels; /* height x width: `room`, or where the array has them */
    float *room; /* memory for as many */
    uint8_t *usable; /* the same; not read where `masked` is 0 */
    float *border; /* as many */
    int32_t *keys; /* as many */
    int masked; /* whether a pixel cannot be used */
} Band;

/* a band with room for its pixels; `room` is 0 where there is no memory */
static Band room_for(int64_t area) {
    Band band = {NULL, malloc((size_t)area * 13 + 256), NULL, NULL, NULL, 0};
    if (band.room) {
        band.border = band.room + area;
        band.keys = (int32_t *)(band.border + area);
        band.usable = (uint8_t *)(band.keys + area);
    }
    return band;
}

VECTORS void astroml_widened(const uint8_t *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i];
}

VECTORS int astroml_differ(const float *pixels, int64_t count, float first) {
    int32_t found = 0;
    for (int64_t i = 0; i < count; i++) found |= pixels[i] != first;
    return found;
}

VECTORS int64_t astroml_marked(const uint8_t *flags, int64_t count) {
    int64_t total = 0;
    for (int64_t start = 0; start < count; start += 128) { /* short sums fit into bytes */
        uint8_t sum = 0;
        int64_t end = start + 128 < count ? start + 128 : count;
        for (int64_t i = start; i < end; i++) sum += flags[i];
        total += sum;
    }
    return total;
}

/* the pixels of a band, and which can be used, row after row; how many those are */
static int64_t load(Band *band, const Planes *image, int wide, const Planes *valid, Shape shape, int64_t stamp, int64_t which) {
    const int64_t width = shape.width, area = shape.height * width;
    band->pixels = band->room;
    if (wide && image->row == width) band->pixels = floats(image, stamp, which);
    else
        for (int64_t y = 0; y < shape.height; y++) {
            float *row = band->room + y * width;
            if (wide) memcpy(row, floats(image, stamp, which) + y * image->row, (size_t)width * 4);
            else astroml_widened(bytes(image, stamp, which) + y * image->row, row, width);
        }
    band->masked = 0;
    if (!valid->data) return area;
    for (int64_t y = 0; y < shape.height; y++)
        memcpy(band->usable + y * width, bytes(valid, stamp, which) + y * valid->row, (size_t)width);
    int64_t known = astroml_marked(band->usable, area);
    band->masked = known < area;
    return known;
}

/* whether all usable pixels have one value, or there is none */
static int constant(const Band *band, int64_t area) {
    if (!band->masked) {
        const int64_t some = area < 64 ? area : 64; /* nearly always enough */
        return !astroml_differ(band->pixels, some, band->pixels[0]) && !astroml_differ(band->pixels, area, band->pixels[0]);
    }
    int64_t first = 0;
    while (first < area && !band->usable[first]) first++;
    for (int64_t i = first; i < area; i++)
        if (band->usable[i] && band->pixels[i] != band->pixels[first]) return 0;
    return 1;
}

/* `next`: places to skip before the next one is taken */
INLINE int64_t take(Band *band, int64_t from, int64_t length, int64_t step, int64_t *next, int64_t found) {
    if (step == 1 && !band->masked) {
        for (int64_t i = 0; i < length; i++) band->border[found + i] = band->pixels[from + i];
        return found + length;
    }
    int64_t i = *next;
    for (; i < length; i += step) {
        band->border[found] = band->pixels[from + i];
        found += !band->masked || band->usable[from + i];
    }
    *next = i - length;
    return found;
}

VECTORS int astroml_numbers(const float *values, int64_t count) {
    int32_t other = 0;
    for (int64_t i = 0; i < count; i++) other |= values[i] != values[i];
    return !other;
}

/* the usable pixels of the border in `band->border`, every `step`th place; all of the stamp where few are usable */
static int64_t border_of(Band *band, Shape shape, int64_t width, int64_t step, int may_lack) {
    const int64_t w = shape.width, h = shape.height, area = w * h;
    int64_t next = 0, found = 0, small = (w < h ? w : h) <= 2 * width;
    if (!small && may_lack && band->masked) { /* few are few whatever the step */
        int64_t known = 0;
        for (int64_t y = 0; y < h; y++) {
            if (y < width || y >= h - width) known += astroml_marked(band->usable + y * w, w);
            else known += astroml_marked(band->usable + y * w, width) + astroml_marked(band->usable + y * w + w - width, width);
        }
        small = known < FEW;
    } else if (!small && may_lack) {
        small = area - (w - 2 * width) * (h - 2 * width) < FEW;
    }
    if (small) {
        found = take(band, 0, area, step, &next, 0);
    } else {
        found = take(band, 0, width * w, step, &next, found);
        found = take(band, (h - width) * w, width * w, step, &next, found);
        for (int64_t y = width; y < h - width; y++) found = take(band, y * w, width, step, &next, found);
        for (int64_t y = width; y < h - width; y++) found = take(band, y * w + w - width, width, step, &next, found);
    }
    if (astroml_numbers(band->border, found)) return found;
    int64_t numbers = 0; /* NaN that nobody marked are no values */
    for (int64_t i = 0; i < found; i++) {
        band->border[numbers] = band->border[i];
        numbers += band->border[i] == band->border[i];
    }
    return numbers;
}

/* Gaussian width of `count` values of the border about their median, as `robust_width`; the values are lost */
static float width_of(Band *band, int64_t count, float level) {
    for (int64_t i = 0; i < count; i++) band->border[i] = fabsf(band->border[i] - level);
    float width = astroml_median(band->border, count, band->keys) * MAD_TO_SIGMA;
    if (!(width > 0) && count) {
        double sum = 0;
        for (int64_t i = 0; i < count; i++) sum += band->border[i];
        width = (float)(sum / (double)count) * MEAN_TO_SIGMA;
    }
    return width > 0 ? width : 1.0f;
}

/* ---- normalisation --------------------------------------------------------------------------------------------- */

INLINE float log_from_one(float x) { /* of values from 1 to infinity, and NaN (polynomial of Cephes' logf) */
    int32_t bits;
    memcpy(&bits, &x, 4);
    int32_t power = (bits - 0x3f3504f3) >> 23;
    bits -= power << 23;
    float part, e = (float)power;
    memcpy(&part, &bits, 4);
    part -= 1.0f;
    float square = part * part, fourth = square * square;
    float low = (-2.4999993993e-1f * part + 3.3333331174e-1f) + (-1.6668057665e-1f * part + 2.0000714765e-1f) * square;
    float high = (-1.2420140846e-1f * part + 1.4249322787e-1f) + (-1.1514610310e-1f * part + 1.1676998740e-1f) * square;
    float y = low + (high + 7.0376836292e-2f * fourth) * fourth; /* pairs, so that few steps wait for each other */
    y = y * part * square + e * -2.12194440e-4f - 0.5f * square;
    float log = part + y + e * 0.693359375f;
    return x <= FLT_MAX ? log : x;
}

VECTORS void astroml_linear(const float *pixels, int64_t count, float level, float unit, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = (pixels[i] - level) / unit;
}

VECTORS void astroml_asinh(const float *pixels, int64_t count, float level, float unit, float softening, float *out) {
    float share = 1.0f / unit;
    if (!(unit > 1e-30f)) { /* whose inverse may be infinite */
        astroml_linear(pixels, count, level, unit, out);
        pixels = out;
        level = 0.0f;
        share = 1.0f;
    }
    for (int64_t i = 0; i < count; i++) {
        float x = (pixels[i] - level) * share;
        out[i] = copysignf(log_from_one(sqrtf(x * x + 1.0f) + fabsf(x)), x) * softening;
    }
}

VECTORS void astroml_hide(float *values, const uint8_t *usable, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] = usable[i] ? values[i] : 0.0f;
}

int astroml_normalise(const Planes *image, int wide, const Planes *variance, const Planes *valid, const Shape *size,
                      int64_t border, int subtract, const float *scales, float softening, float *out,
                      uint8_t *missing, uint8_t *empty) {
    const Shape shape = *size;
    const int64_t area = shape.height * shape.width;
    const int may_lack = valid->data != NULL;
    Band band = room_for(area), spread = room_for(variance->data && !scales ? area : 0);
    int done = band.room && spread.room;
    for (int64_t stamp = 0; done && stamp < shape.stamps; stamp++) {
        empty[stamp] = 1;
        for (int64_t b = 0; b < shape.bands; b++, out += area) {
            if (load(&band, image, wide, valid, shape, stamp, b)) empty[stamp] = 0;
            missing[stamp * shape.bands + b] = (uint8_t)constant(&band, area);
            float level = 0.0f, unit = scales ? scales[b] : 1.0f;
            const int own = !scales && !variance->data;
            if (subtract || own) {
                int64_t count = border_of(&band, shape, border, 1, may_lack);
                float middle = astroml_median(band.border, count, band.keys);
                if (own) unit = width_of(&band, count, middle);
                if (subtract) level = middle;
            }
            if (!scales && variance->data) {
                load(&spread, variance, 1, valid, shape, stamp, b);
                int64_t count = border_of(&spread, shape, border, SPARSE, may_lack);
                float middle = astroml_median(spread.border, count, spread.keys);
                unit = middle > 0 ? sqrtf(middle) : 1.0f;
            }
            if (softening > 0) astroml_asinh(band.pixels, area, level, unit * softening, softening, out);
            else astroml_linear(band.pixels, area, level, unit, out);
            if (band.masked) astroml_hide(out, band.usable, area);
        }
    }
    free(band.room);
    free(spread.room);
    return done;
}

int astroml_border(const Planes *image, int wide, const Planes *valid, const Shape *size, int64_t border, float *level,
                   float *width) {
    const Shape shape = *size;
    Band band = room_for(shape.height * shape.width);
    const int done = band.room != NULL;
    for (int64_t stamp = 0; done && stamp < shape.stamps; stamp++)
        for (int64_t b = 0; b < shape.bands; b++) {
            int64_t place = stamp * shape.bands + b;
            load(&band, image, wide, valid, shape, stamp, b);
            int64_t count = border_of(&band, shape, border, 1, valid->data != NULL);
            level[place] = astroml_median(band.border, count, band.keys);
            if (width) width[place] = width_of(&band, count, level[place]);
        }
    free(band.room);
    return done;
}

VECTORS void astroml_ratio(const float *variance, int64_t count, float sky, float *out) {
    for (int64_t i = 0; i < count; i++) {
        float safe = variance[i] > 1e-30f ? variance[i] : 1e-30f, ratio = sky / safe;
        ratio = ratio > 2.0f ? 2.0f : ratio;
        out[i] = ratio < 0.0f ? 0.0f : ratio;
    }
}

int astroml_weights(const Planes *variance, const Planes *valid, const Shape *size, int64_t border, float *out) {
    const Shape shape = *size;
    const int64_t area = shape.height * shape.width;
    Band band = room_for(area);
    const int done = band.room != NULL;
    for (int64_t stamp = 0; done && stamp < shape.stamps; stamp++)
        for (int64_t b = 0; b < shape.bands; b++, out += area) {
            load(&band, variance, 1, valid, shape, stamp, b);
            int64_t count = border_of(&band, shape, border, 1, valid->data != NULL);
            astroml_ratio(band.pixels, area, astroml_median(band.border, count, band.keys), out);
            if (band.masked) astroml_hide(out, band.usable, area);
        }
    free(band.room);
    return done;
}

/* ---- validity -------------------------------------------------------------------------------------------------- */

VECTORS int astroml_all_usable(const float *image, const float *variance, int64_t count) {
    const int64_t block = 4096;
    for (int64_t start = 0; start < count; start += block) {
        int64_t end = start + block < count ? start + block : count;
        int32_t bad = 0;
        if (image)
            for (int64_t i = start; i < end; i++) bad |= !(fabsf(image[i]) <= FLT_MAX);
        if (variance)
            for (int64_t i = start; i < end; i++) bad |= !(variance[i] > 0.0f) | !(variance[i] <= FLT_MAX);
        if (bad) return 0;
    }
    return 1;
}

enum { EDGE = 1, MASKED = 2, NONFINITE = 4, SATURATED = 8 }; /* ObjectFlag */

/* whether a mask says nothing about any pixel that matters: `bits` are bad, saturated and without data */
VECTORS int astroml_unmasked(const uint32_t *mask, int64_t count, const uint32_t *bits) {
    const uint32_t any = bits[0] | bits[1] | bits[2];
    uint32_t found = 0;
    for (int64_t i = 0; i < count; i++) found |= mask[i] & any;
    return !found;
}

/* bits of the faults of each pixel, by its value and variance (`look`) or as they were (`before`), and by its mask; the
 * pixels that have none, 0 elsewhere */
VECTORS void astroml_faults(const void *image, int wide, const float *variance, const uint32_t *mask, int64_t count,
                            const uint32_t *bits, const uint8_t *before, int look, uint8_t *out, void *pixels,
                            float *spread) {
    const uint32_t bad = bits[0], full = bits[1], nothing = bits[2];
    for (int64_t i = 0; i < count; i++) out[i] = before ? before[i] : 0;
    if (look && wide)
        for (int64_t i = 0; i < count; i++) out[i] |= fabsf(((const float *)image)[i]) <= FLT_MAX ? 0 : NONFINITE;
    if (look && variance)
        for (int64_t i = 0; i < count; i++) out[i] |= variance[i] > 0.0f && variance[i] <= FLT_MAX ? 0 : MASKED;
    if (mask)
        for (int64_t i = 0; i < count; i++) {
            uint32_t mine = mask[i];
            uint8_t found = out[i] | (uint8_t)(((mine & bad) != 0) * MASKED) | (uint8_t)(((mine & full) != 0) * SATURATED);
            out[i] = mine & nothing ? EDGE : found;
        }
    if (wide)
        for (int64_t i = 0; i < count; i++) ((float *)pixels)[i] = out[i] ? 0.0f : ((const float *)image)[i];
    else
        for (int64_t i = 0; i < count; i++) ((uint8_t *)pixels)[i] = out[i] ? 0 : ((const uint8_t *)image)[i];
    if (spread)
        for (int64_t i = 0; i < count; i++) spread[i] = out[i] ? 0.0f : variance[i];
}

VECTORS int64_t astroml_equal(const float *row, int64_t count) {
    int32_t number = 0;
    for (int64_t i = 0; i < count; i++) number += row[i] == row[i + 1];
    return number;
}

/* equal neighbours in some rows about the centre: `first` to `last` row in steps, and columns */
void astroml_neighbours(const Planes *image, const Shape *size, const int64_t *rows, const int64_t *columns, int64_t *out) {
    for (int64_t stamp = 0; stamp < size->stamps; stamp++)
        for (int64_t b = 0; b < size->bands; b++) {
            int64_t number = 0;
            const float *pixels = floats(image, stamp, b);
            for (int64_t y = rows[0]; y < rows[1]; y += rows[2])
                number += astroml_equal(pixels + y * image->row + columns[0], columns[1] - 1 - columns[0]);
            *out++ = number;
        }
}

/* sums of a weight (height x width, one row after the other) over the usable pixels of each band */
VECTORS void astroml_seen(const Planes *valid, const Shape *size, const float *weight, float *out) {
    for (int64_t stamp = 0; stamp < size->stamps; stamp++)
        for (int64_t b = 0; b < size->bands; b++) {
            float lanes[16] = {0};
            for (int64_t y = 0; y < size->height; y++) {
                const uint8_t *row = bytes(valid, stamp, b) + y * valid->row;
                const float *weights = weight + y * size->width;
                int64_t x = 0;
                for (; x + 16 <= size->width; x += 16)
                    for (int i = 0; i < 16; i++) lanes[i] += row[x + i] ? weights[x + i] : 0.0f;
                for (; x < size->width; x++) lanes[0] += row[x] ? weights[x] : 0.0f;
            }
            for (int i = 8; i; i /= 2)
                for (int j = 0; j < i; j++) lanes[j] += lanes[j + i];
            *out++ = lanes[0];
        }
}

/* ---- sums of light --------------------------------------------------------------------------------------------- */

VECTORS float astroml_dot(const float *left, const float *right, int64_t count) {
    float lanes[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += left[i + j] * right[i + j];
    for (; i < count; i++) lanes[0] += left[i] * right[i];
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

VECTORS void astroml_added(float *to, const float *from, int64_t count, float factor) {
    for (int64_t i = 0; i < count; i++) to[i] += from[i] * factor;
}

VECTORS void astroml_scaled(float *to, const float *from, int64_t count, float level, float factor) {
    for (int64_t i = 0; i < count; i++) to[i] = (from[i] - level) * factor;
}

/* the bands of stamps in one plane: sums under weights (w, height x width), and light in square cells */
int astroml_light(const Planes *image, const Shape *size, const float *weights, int64_t number, const int64_t *place,
                  int64_t cells, float factor, float *out) {
    const int64_t width = size->width, area = size->height * width;
    float *plane = malloc((size_t)area * 4 + 64);
    const int done = plane != NULL;
    for (int64_t stamp = 0; done && stamp < size->stamps; stamp++) {
        memset(plane, 0, (size_t)area * 4);
        for (int64_t b = 0; b < size->bands; b++)
            for (int64_t y = 0; y < size->height; y++)
                astroml_added(plane + y * width, floats(image, stamp, b) + y * image->row, width, factor);
        for (int64_t w = 0; w < number; w++) *out++ = astroml_dot(plane, weights + w * area, area);
        memset(out, 0, (size_t)(cells * cells) * 4);
        for (int64_t y = 0; y < size->height;) {
            int64_t cell = place[y], first = y++;
            for (; y < size->height && place[y] == cell; y++) /* rows of a cell together, in the first of them */
                astroml_added(plane + first * width, plane + y * width, width, 1.0f);
            for (int64_t x = 0; cell >= 0 && x < width; x++)
                if (place[x] >= 0) out[cell * cells + place[x]] += plane[first * width + x];
        }
        out += cells * cells;
    }
    free(plane);
    return done;
}

/* one value of every `step`th place along the rim, rows before columns */
static int64_t rim_of(const Band *band, Shape shape, int64_t step, float *out) {
    const int64_t w = shape.width, h = shape.height, total = 2 * w + 2 * h;
    int64_t found = 0;
    for (int64_t i = 0; i < total; i += step) {
        int64_t at = i < w ? i : i < 2 * w ? (h - 1) * w + i - w : i < 2 * w + h ? (i - 2 * w) * w : (i - 2 * w - h) * w + w - 1;
        float value = band->pixels[at];
        out[found] = value;
        found += (!band->masked || band->usable[at]) && value == value;
    }
    return found;
}

/* variance of the noise from neighbours in the two outermost rows on either side; 0 where nothing is known */
static float rows_variance(const Band *band, Shape shape) {
    const int64_t w = shape.width, rows[4] = {0, 1, shape.height - 2, shape.height - 1};
    double sum = 0;
    int64_t known = 0;
    for (int r = 0; r < 4; r++)
        for (int64_t i = rows[r] * w; i + 1 < (rows[r] + 1) * w; i++)
            if (!band->masked || (band->usable[i] && band->usable[i + 1])) {
                sum += fabsf(band->pixels[i + 1] - band->pixels[i]);
                known++;
            }
    const float mean = known ? (float)(sum / (double)known) : 0.0f, square = mean * mean;
    return (square <= FLT_MAX ? square : FLT_MAX) * 0.78539816f;
}

typedef struct {
    int64_t half, step; /* half of the window's side; every `step`th pixel is asked for level and variance */
    float core, noise; /* radius that must be usable; noise of the light under `band_weight` of pixels of noise 1 */
    const float *band_weight, *moments; /* (side squared), (4, side squared) */
} Centre;

/* the bands about the centre pixel in one plane, its noise, and four sums of it: as `_plane` of cutouts.centring */
int astroml_plane(const Planes *image, const Planes *variance, const Planes *valid, const Shape *size,
                  const Centre *centre, float *plane, float *noise, float *sums) {
    const Shape shape = *size;
    const int64_t side = 2 * centre->half + 1, window = side * side, top = shape.height / 2 - centre->half,
                  left = shape.width / 2 - centre->half;
    Band band = room_for(shape.height * shape.width);
    float *bands = malloc((size_t)(shape.bands * (window + 2)) * 4 + 64);
    float *usable = bands + shape.bands * window, *weight = usable + shape.bands;
    const int done = band.room && bands;
    for (int64_t stamp = 0; done && stamp < shape.stamps; stamp++, plane += window) {
        for (int64_t b = 0; b < shape.bands; b++) {
            float *part = bands + b * window;
            load(&band, image, 1, valid, shape, stamp, b);
            int64_t count = rim_of(&band, shape, centre->step, band.border);
            float level = astroml_median(band.border, count, band.keys), spread;
            if (variance->data) {
                double sum = 0;
                int64_t asked = 0;
                for (int64_t i = 0; i < window; i += centre->step, asked++)
                    sum += (floats(variance, stamp, b) + (top + i / side) * variance->row)[left + i % side];
                spread = (float)(sum / (double)asked);
            } else {
                spread = rows_variance(&band, shape);
            }
            for (int64_t y = 0; band.masked && y < side; y++)
                for (int64_t x = 0; x < side; x++) {
                    float far = sqrtf((float)((y - centre->half) * (y - centre->half) + (x - centre->half) * (x - centre->half)));
                    if (far <= centre->core && !band.usable[(top + y) * shape.width + left + x]) spread = 0.0f;
                }
            usable[b] = spread > 0 ? 1.0f : 0.0f;
            float scale = spread > 0 ? 1.0f / sqrtf(spread) : 0.0f;
            for (int64_t y = 0; y < side; y++) {
                const int64_t from = (top + y) * shape.width + left;
                astroml_scaled(part + y * side, band.pixels + from, side, level, scale);
                if (band.masked) astroml_hide(part + y * side, band.usable + from, side);
            }
        }
        if (shape.bands == 1) {
            memcpy(plane, bands, (size_t)window * 4);
            noise[stamp] = usable[0];
        } else {
            float most = 1.0f, square = 0.0f;
            for (int64_t b = 0; b < shape.bands; b++) {
                float light = astroml_dot(bands + b * window, centre->band_weight, window) / centre->noise;
                weight[b] = (light > 1.0f ? light : 1.0f) * usable[b];
                if (weight[b] > most) most = weight[b];
            }
            memset(plane, 0, (size_t)window * 4);
            for (int64_t b = 0; b < shape.bands; b++) {
                float part = weight[b] / most;
                square += part * part;
                astroml_added(plane, bands + b * window, window, part);
            }
            noise[stamp] = sqrtf(square);
        }
        for (int s = 0; s < 4; s++) *sums++ = astroml_dot(plane, centre->moments + s * window, window);
    }
    free(band.room);
    free(bands);
    return done;
}

/* (4,) sums of each plane (side x side) under a Gaussian about (x, y) from its centre pixel: its light, the moments along
 * x and y, and half of the second moments */
VECTORS void astroml_moments(const float *plane, int64_t count, int64_t side, const float *place, float width, float *out) {
    enum { MOST = 64 };
    float across[MOST], light[MOST], first[MOST], second[MOST];
    for (int64_t n = 0; n < count; n++, plane += side * side, place += 2, out += 4) {
        for (int64_t x = 0; x < side; x++) {
            float offset = (float)(x - side / 2) - place[0];
            across[x] = expf(offset * offset * (-0.5f / (width * width)));
            light[x] = first[x] = second[x] = 0;
        }
        for (int64_t y = 0; y < side; y++) {
            float offset = (float)(y - side / 2) - place[1], weight = expf(offset * offset * (-0.5f / (width * width)));
            float along = weight * offset, square = along * offset;
            for (int64_t x = 0; x < side; x++) {
                float value = plane[y * side + x];
                light[x] += value * weight;
                first[x] += value * along;
                second[x] += value * square;
            }
        }
        float total = 0, at_x = 0, at_y = 0, spread = 0;
        for (int64_t x = 0; x < side; x++) {
            float offset = (float)(x - side / 2) - place[0];
            total += light[x] * across[x];
            at_x += light[x] * across[x] * offset;
            at_y += first[x] * across[x];
            spread += (light[x] * offset * offset + second[x]) * across[x];
        }
        out[0] = total;
        out[1] = at_x;
        out[2] = at_y;
        out[3] = spread / 2;
    }
}

/* ---- images of the PSF ----------------------------------------------------------------------------------------- */

/* of each image: its sum, sums and counts of pixels that are not 0 by square ring about pixel size // 2, its peak */
void astroml_rings(const Planes *psf, const Shape *size, int64_t rings, float *sums, float *counts, float *peak) {
    for (int64_t stamp = 0; stamp < size->stamps; stamp++)
        for (int64_t b = 0; b < size->bands; b++, sums += rings, counts += rings) {
            const float *pixels = floats(psf, stamp, b);
            float most = -FLT_MAX;
            memset(sums, 0, (size_t)rings * 4);
            memset(counts, 0, (size_t)rings * 4);
            for (int64_t y = 0; y < size->height; y++) {
                const int64_t up = llabs(y - size->height / 2);
                for (int64_t x = 0; x < size->width; x++) {
                    float value = pixels[y * psf->row + x];
                    if (!(fabsf(value) <= FLT_MAX)) value = value != value ? 0.0f : copysignf(FLT_MAX, value);
                    const int64_t across = llabs(x - size->width / 2), ring = up > across ? up : across;
                    sums[ring] += value;
                    counts[ring] += value != 0.0f;
                    most = value > most ? value : most;
                }
            }
            *peak++ = most;
        }
}

/* images of unit sum, whether they have a sum above 0, and where their light lies from pixel size // 2 (x, y) under
 * weights along y and x */
void astroml_unit_psf(const Planes *psf, const Shape *size, const float *along_y, const float *along_x, float *out,
                      uint8_t *good, float *place) {
    const int64_t w = size->width, h = size->height;
    for (int64_t stamp = 0; stamp < size->stamps; stamp++)
        for (int64_t b = 0; b < size->bands; b++, out += h * w, good++, place += 2) {
            const float *pixels = floats(psf, stamp, b);
            double sum = 0;
            for (int64_t y = 0; y < h; y++) {
                float row = 0;
                for (int64_t x = 0; x < w; x++) row += pixels[y * psf->row + x];
                sum += row;
            }
            const float total = (float)sum;
            *good = total > 0 && total <= FLT_MAX;
            place[0] = place[1] = 0;
            if (!*good) {
                memset(out, 0, (size_t)(h * w) * 4);
                continue;
            }
            double light = 0, at_x = 0, at_y = 0;
            for (int64_t y = 0; y < h; y++) {
                float row = 0, moment = 0;
                for (int64_t x = 0; x < w; x++) {
                    float value = pixels[y * psf->row + x] / total, weighted = value * along_x[x];
                    out[y * w + x] = value;
                    row += weighted;
                    moment += weighted * (float)(x - w / 2);
                }
                light += row * along_y[y];
                at_x += moment * along_y[y];
                at_y += row * along_y[y] * (double)(y - h / 2);
            }
            if (light > 0) {
                light = light > 1e-30 ? light : 1e-30;
                place[0] = (float)(at_x / light);
                place[1] = (float)(at_y / light);
            }
        }
}

/* sums over the core of each image (pixels above a part of its peak) that `psf_fwhms` fits: ten of the powers, and four
 * of the powers times the logarithm of the light over the peak; then the peak */
void astroml_core(const Planes *psf, const Shape *size, const int64_t *half, float part, double *out) {
    const int64_t top = size->height / 2 - half[0], left = size->width / 2 - half[1];
    for (int64_t stamp = 0; stamp < size->stamps; stamp++)
        for (int64_t b = 0; b < size->bands; b++, out += 15) {
            const float *pixels = floats(psf, stamp, b);
            float light[512], peak = -FLT_MAX;
            int64_t number = 0;
            for (int64_t y = 0; y <= 2 * half[0]; y++)
                for (int64_t x = 0; x <= 2 * half[1]; x++) {
                    float value = pixels[(top + y) * psf->row + left + x];
                    if (!(fabsf(value) <= FLT_MAX)) value = value != value ? 0.0f : copysignf(FLT_MAX, value);
                    light[number++] = value;
                    peak = value > peak ? value : peak;
                }
            memset(out, 0, 15 * sizeof(double));
            number = 0;
            for (int64_t y = -half[0]; y <= half[0]; y++)
                for (int64_t x = -half[1]; x <= half[1]; x++) {
                    float value = light[number++];
                    if (!(value > part * peak)) continue;
                    const double square = (double)(x * x + y * y), level = logf(value / peak);
                    const double powers[10] = {1, (double)x, (double)y, square, (double)(x * x), (double)(y * y),
                                               (double)(x * y), (double)x * square, (double)y * square, square * square};
                    for (int i = 0; i < 10; i++) out[i] += powers[i];
                    for (int i = 0; i < 4; i++) out[10 + i] += powers[i] * level;
                }
            out[14] = peak;
        }
}

/* ---- structure of a stamp (networks.structure) ----------------------------------------------------------------- */

enum { ROW = 256, SHIFTS = 5, REACH = 2, CORE = 25 }; /* longest row with its margins; as in networks.structure */
static const float ROOT_PI = 1.7724538509055160273f;

typedef struct {
    int64_t side, rings;
    const float *radius; /* of each pixel from the middle */
    const int32_t *ring; /* of each pixel; `rings` of none */
    const float *counts, *areas; /* pixels and area of each ring */
} Places;

INLINE float greater(float a, float b) { return a > b ? a : b; }

INLINE float largest(const float *values, int64_t count, float most) {
    for (int64_t i = 0; i < count; i++) most = greater(most, values[i]);
    return most;
}

INLINE float total_of(const float *values, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += values[i];
    return (float)sum;
}

/* means of k x k pixels of a plane, 0 beyond its edge */
INLINE void box(const float *from, float *to, int64_t side, const int64_t k) {
    float row[ROW] = {0};
    for (int64_t y = 0; y < side; y++, to += side) {
        for (int64_t x = 0; x < side; x++) row[k / 2 + x] = 0;
        for (int64_t j = y < k / 2 ? 0 : y - k / 2; j <= y + k / 2 && j < side; j++)
            for (int64_t x = 0; x < side; x++) row[k / 2 + x] += from[j * side + x];
        for (int64_t x = 0; x < side; x++) {
            float sum = row[x] + row[x + 1] + row[x + 2];
            if (k == 5) sum += row[x + 3] + row[x + 4];
            to[x] = sum / (float)(k * k);
        }
    }
}

VECTORS void astroml_boxes(const float *from, float *three, float *five, int64_t side) {
    if (three) box(from, three, side, 3);
    box(from, five, side, 5);
}

VECTORS void astroml_together(float *sums, int64_t count, float bands) {
    const float root = sqrtf(bands);
    for (int64_t i = 0; i < count; i++) sums[i] = sums[i] / bands * root;
}

/* Gaussian width of the three outermost pixels, at least a tenth */
static float rim_width(const float *light, int64_t side, float *values, int32_t *keys) {
    int64_t count = 0;
    for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x++) {
            if (y >= 3 && y < side - 3 && x == 3) x = side - 3;
            values[count++] = light[y * side + x];
        }
    const float level = astroml_median(values, count, keys);
    for (int64_t i = 0; i < count; i++) values[i] = fabsf(values[i] - level);
    return greater(astroml_median(values, count, keys) * MAD_TO_SIGMA, 0.1f);
}

/* a plane turned by half about the centre, in half pixels, that makes its middle most alike; `padded`: (side + 4)^2 */
VECTORS void astroml_turned(const float *light, int64_t side, float *padded, float *out) {
    const int64_t wide = side + 2 * REACH, most = side - 2 * REACH - 1 + side % 2;
    const int64_t half = (most < CORE ? most : CORE) / 2, start = side / 2 - half, k = 2 * half + 1;
    memset(padded, 0, (size_t)(wide * wide) * 4);
    for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x++)
            padded[(y + REACH) * wide + x + REACH] = light[(side - 1 - y) * side + side - 1 - x];
    float best = INFINITY;
    int64_t at = 0;
    for (int64_t place = 0; place < SHIFTS * SHIFTS; place++) {
        float sums[CORE + 7] = {0};
        for (int64_t y = 0; y < k; y++) {
            const float *one = light + (start + y) * side + start;
            const float *two = padded + (start + y + place / SHIFTS) * wide + start + place % SHIFTS;
            for (int64_t x = 0; x < k; x++) sums[x] += fabsf(one[x] - two[x]);
        }
        const float sum = total_of(sums, k);
        if (sum < best) {
            best = sum;
            at = place;
        }
    }
    for (int64_t y = 0; y < side; y++)
        memcpy(out + y * side, padded + (y + at / SHIFTS) * wide + at % SHIFTS, (size_t)side * 4);
}

/* 1.5 Petrosian radii, lg of the radius of half of the light, and the light within, from a plane */
static void sizes_of(const float *both, const Places *places, float *edge, float *log_radius, float *total) {
    double sums[4][ROW] = {{0}}, light = 0, area = 0;
    float mean[ROW], grown[ROW], inside[ROW];
    const int64_t last = places->rings, count = places->side * places->side;
    for (int64_t i = 0; i < count; i++) sums[i & 3][places->ring[i]] += both[i]; /* neighbours wait for no other */
    int64_t place = last - 1, ring = 0;
    for (int64_t i = 0; i < last; i++) {
        const double each = (sums[0][i] + sums[1][i] + sums[2][i] + sums[3][i]) / places->counts[i];
        mean[i] = (float)each;
        grown[i] = (float)(light += each * places->areas[i]);
        inside[i] = (float)(light / (area += places->areas[i]));
    }
    for (int64_t i = last - 1; i >= 2; i--)
        if (mean[i] < 0.2f * inside[i]) place = i;
    const float above = mean[place - 1] / inside[place - 1], below = mean[place] / inside[place];
    float step = (above - 0.2f) / greater(above - below, 1e-6f);
    step = step < 0 ? 0 : step > 1 ? 1 : step;
    *edge = 1.5f * ((float)(place - 1) + step + 0.5f);
    *edge = *edge < 3 ? 3 : *edge > (float)(last - 1) ? (float)(last - 1) : *edge;
    *total = greater(grown[(int64_t)rintf(*edge)], 1e-6f);
    for (int64_t i = last - 1; i >= 0; i--)
        if (grown[i] >= 0.5f * *total) ring = i;
    const float before = ring > 0 ? grown[ring - 1] : 0;
    step = (0.5f * *total - before) / greater(grown[ring] - before, 1e-6f);
    step = step < 0 ? 0 : step > 1 ? 1 : step;
    *log_radius = log10f(greater(ring > 0 ? (float)ring - 0.5f + step : 0.5f * sqrtf(step), 0.3f));
}

/* pixels within the edge, and of those the sums of |light - turned| and of |light| */
VECTORS void astroml_within(const float *light, const float *turned, const Places *places, float edge, float *out) {
    const int64_t side = places->side;
    float area[ROW] = {0}, change[ROW] = {0}, whole[ROW] = {0};
    for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x++) {
            const int64_t i = y * side + x;
            const float in = places->radius[i] <= edge ? 1.0f : 0.0f;
            area[x] += in;
            change[x] += fabsf(light[i] - turned[i]) * in;
            whole[x] += fabsf(light[i]) * in;
        }
    out[0] = total_of(area, side);
    out[1] = total_of(change, side);
    out[2] = total_of(whole, side);
}

/* brightest of the middle; brightest other peak, fading; brightest light without a partner, near the object */
VECTORS void astroml_peaks(const float *smooth, const float *wide, const float *alone, const Places *places, float noise,
                           float edge, float *out) {
    const int64_t side = places->side;
    float middle[ROW], second[ROW] = {0}, left[ROW], rows[ROW];
    for (int64_t x = 0; x < side; x++) middle[x] = left[x] = -INFINITY;
    for (int64_t y = 0; y < side; y++) {
        const float *here = smooth + y * side, *up = y ? here - side : here, *down = y < side - 1 ? here + side : here;
        rows[0] = rows[side + 1] = -INFINITY;
        for (int64_t x = 0; x < side; x++) rows[x + 1] = greater(greater(up[x], here[x]), down[x]);
        for (int64_t x = 0; x < side; x++) {
            const float radius = places->radius[y * side + x], far = radius / (1.5f * edge), square = far * far;
            const float value = wide[y * side + x], fading = 1 / (1 + square * square);
            const float highest = greater(greater(rows[x], rows[x + 1]), rows[x + 2]);
            const int peak = (here[x] >= highest) & (here[x] > 2 * noise) & (radius > 4.0f);
            second[x] = greater(second[x], peak ? value * fading : 0.0f);
            middle[x] = greater(middle[x], radius <= 4.0f ? value : -INFINITY);
            left[x] = greater(left[x], radius <= 1.33f * edge ? alone[y * side + x] : -INFINITY);
        }
    }
    out[0] = largest(middle, side, -INFINITY);
    out[1] = largest(second, side, 0);
    out[2] = largest(left, side, -INFINITY);
}

/* means of 3 x 3 pixels at twice the pixel size, in noise, clipped */
VECTORS void astroml_doubled(const float *light, int64_t side, float unit, float most, float *out) {
    float rows[ROW];
    for (int64_t y = 1; y < side - 1; y += 2) {
        for (int64_t x = 0; x < side; x++)
            rows[x] = light[y * side + x] + light[(y - 1) * side + x] + light[(y + 1) * side + x];
        for (int64_t x = 1; x < side - 1; x += 2) {
            float value = (rows[x] + rows[x - 1] + rows[x + 1]) / 9 / unit;
            *out++ = value < -most ? -most : value > most ? most : value;
        }
    }
}

/* of the middle of one band: largest excess of a pixel over its neighbours, and how many share the highest value */
VECTORS void astroml_sharp(const float *pixels, int64_t row, int64_t side, float *sharpest, float *shared) {
    float best[ROW], rows[ROW], high[ROW], number[ROW] = {0};
    for (int64_t x = 0; x < side; x++) best[x] = high[x] = -INFINITY;
    for (int64_t y = 0; y < side; y++) {
        const float *here = pixels + y * row;
        for (int64_t x = 0; x < side; x++) high[x] = greater(high[x], here[x]);
        if (y == 0 || y == side - 1) continue;
        for (int64_t x = 0; x < side; x++) rows[x] = here[x - row] + here[x] + here[x + row];
        for (int64_t x = 1; x < side - 1; x++) {
            const float around = rows[x - 1] + rows[x] + rows[x + 1] - here[x];
            best[x] = greater(best[x], here[x] - 0.375f * greater(around, 0.0f));
        }
    }
    const float highest = largest(high, side, -INFINITY);
    for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x++) number[x] += pixels[y * row + x] == highest ? 1.0f : 0.0f;
    *sharpest = largest(best + 1, side - 2, *sharpest);
    *shared = greater(*shared, highest > 20 ? total_of(number, side) - 1 : 0.0f);
}

/* eight numbers of each square stamp of odd side, in the order of networks.structure.PARTS; the line's is not set: for it
 * the clipped pixels of twice the size */
int astroml_structure(const Planes *image, const Shape *size, const Places *places, float *out, float *clipped) {
    const int64_t side = places->side, area = side * side, quarter = side / 4, small = (side - 1) / 2;
    float *light = malloc((size_t)(area * 8 + (side + 4) * (side + 4)) * 4);
    if (!light) return 0;
    float *turned = light + area, *both = turned + area, *smooth = both + area, *wide = smooth + area;
    float *alone = wide + area, *padded = light + 8 * area;
    for (int64_t stamp = 0; stamp < size->stamps; stamp++, out += 8, clipped += small * small) {
        float edge, log_radius, total, sums[3], peaks[3], sharpest = -INFINITY, shared = 0;
        memset(light, 0, (size_t)area * 4);
        for (int64_t b = 0; b < size->bands; b++) {
            const float *pixels = floats(image, stamp, b);
            for (int64_t y = 0; y < side; y++) astroml_added(light + y * side, pixels + y * image->row, side, 1.0f);
            astroml_sharp(pixels + quarter * image->row + quarter, image->row, side - 2 * quarter, &sharpest, &shared);
        }
        astroml_together(light, area, (float)size->bands);
        const float noise = rim_width(light, side, padded, (int32_t *)alone);
        astroml_turned(light, side, padded, turned);
        for (int64_t i = 0; i < area; i++) {
            both[i] = (light[i] < turned[i] ? light[i] : turned[i]) + noise / ROOT_PI;
            padded[i] = light[i] - both[i];
        }
        sizes_of(both, places, &edge, &log_radius, &total);
        astroml_within(light, turned, places, edge, sums);
        astroml_boxes(light, smooth, wide, side);
        astroml_boxes(padded, NULL, alone, side);
        astroml_peaks(smooth, wide, alone, places, noise, edge, peaks);
        astroml_doubled(light, side, noise / 3, 4.0f, clipped);
        const float centre = greater(peaks[0], noise);
        out[0] = log10f(greater(total / greater(noise * sqrtf(sums[0]), 1e-6f), 0.1f));
        out[1] = log_radius;
        out[2] = (sums[1] - sums[0] * 2 * noise / ROOT_PI) / greater(sums[2], 1e-6f);
        out[3] = peaks[1] / centre;
        out[4] = greater(peaks[2] - noise, 0.0f) / centre;
        out[5] = 0;
        out[6] = sharpest;
        out[7] = log10f(1 + shared);
    }
    free(light);
    return 1;
}

INLINE float exp_of(float x) { /* of values from -10 to 10 (polynomial of Cephes' expf) */
    const float power = floorf(x * 1.44269504088896341f + 0.5f);
    x = x - power * 0.693359375f + power * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    int32_t bits = ((int32_t)power + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return y * scale;
}

/* the mean of (model - image)^2 over its variance of each of `planes` planes, as networks.autoencoder.chi_square */
VECTORS void astroml_chi(const float *image, const float *model, const float *weight, int64_t planes, int64_t area,
                         float softening, float relative, float *out) {
    enum { LANES = 16 };
    for (int64_t plane = 0; plane < planes; plane++, image += area, model += area, weight += area) {
        float sums[LANES] = {0};
        for (int64_t first = 0; first < area; first += LANES) {
            const int64_t count = area - first < LANES ? area - first : LANES;
            for (int64_t k = 0; k < count; k++) {
                const int64_t i = first + k;
                float u = 0.5f * (image[i] + model[i]), away = model[i] - image[i], known = weight[i];
                u = u < -10 ? -10 : u > 10 ? 10 : u;
                float grown = exp_of(u), between = softening * 0.5f * (grown - 1 / grown);
                if (fabsf(u) < 0.25f) between = softening * u * (1 + u * u * (1.0f / 6 + u * u * (1.0f / 120)));
                float slope = 1 / (between * between + softening * softening);
                float variance = slope / (known > 1e-3f ? known : 1e-3f) + relative * relative;
                sums[k] += known > 0 ? away * away / variance : 0.0f;
            }
        }
        out[plane] = total_of(sums, LANES) / (float)area;
    }
}

/* ---- statistics of stamps (networks.stamp_statistics) ------------------------------------------------------------ */

typedef struct {
    int64_t rings; /* numbers of weights */
    const int64_t *reach; /* of each, pixels up to its last one that is not 0 */
    const float *weights; /* (rings, height / 2 + 1, width / 2 + 1) by the distances from the centre along both axes */
} Rings;

typedef struct {
    Rings light, wide, all, odd;
    const float *steps; /* (3, wide rings) */
    int64_t corner, block;
} Tables;

/* what pixels of a plane with the same distances from the centre along both axes have together, or those of a product:
 * (h / 2 + 1, w / 2 + 1) */
VECTORS void astroml_folded(const float *plane, const float *times, int64_t stride, int64_t height, int64_t width,
                            float *row, float *out) {
    const int64_t down = height / 2, right = width / 2, both = width - right; /* that far there are pixels on either side */
    for (int64_t y = 0; y <= down; y++, out += right + 1) {
        const int64_t up = (down - y) * stride, low = (down + y) * stride;
        const float *above = plane + up, *below = plane + low;
        if (y == 0 || down + y >= height) {
            if (times)
                for (int64_t x = 0; x < width; x++) row[x] = above[x] * times[up + x];
            else
                memcpy(row, above, (size_t)width * 4);
        } else if (times) {
            for (int64_t x = 0; x < width; x++) row[x] = above[x] * times[up + x] + below[x] * times[low + x];
        } else {
            for (int64_t x = 0; x < width; x++) row[x] = above[x] + below[x];
        }
        out[0] = row[right];
        for (int64_t x = 1; x < both; x++) out[x] = row[right + x] + row[right - x];
        for (int64_t x = both > 1 ? both : 1; x <= right; x++) out[x] = row[right - x];
    }
}

/* sums of a folded plane under each of some weights */
static float *weighted(const float *folded, const Rings *rings, int64_t area, float *out) {
    for (int64_t ring = 0; ring < rings->rings; ring++)
        *out++ = astroml_dot(folded, rings->weights + ring * area, rings->reach[ring]);
    return out;
}

/* sizes of the steps from each pixel of a plane to another one, 0 where that is beyond */
VECTORS void astroml_steps(const float *plane, int64_t height, int64_t width, int64_t down, int64_t right, float *out) {
    for (int64_t y = 0; y < height; y++, out += width) {
        const float *here = plane + y * width, *there = here + down * width + right;
        const int64_t count = y + down < height ? width - right : 0;
        for (int64_t x = 0; x < count; x++) out[x] = fabsf(there[x] - here[x]);
        for (int64_t x = count; x < width; x++) out[x] = 0;
    }
}

/* differences of a plane from itself turned by half about its centre pixel, 0 where there is no partner */
VECTORS void astroml_unlike(const float *plane, int64_t height, int64_t width, float *out) {
    const int64_t above = 1 - height % 2, left = 1 - width % 2;
    memset(out, 0, (size_t)(height * width) * 4);
    for (int64_t y = above; y < height; y++) {
        const float *here = plane + y * width, *there = plane + (height - 1 + above - y) * width;
        for (int64_t x = left; x < width; x++) out[y * width + x] = here[x] - there[width - 1 + left - x];
    }
}

enum { LANES = 8, KINDS = 8 };

INLINE float lanes_total(const float *lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* of a square of pixels, whose side is a multiple of 8, and those two beyond it: the numbers of PixelSums.CORNER */
VECTORS void astroml_square(const float *from, int64_t row, int64_t side, float *out) {
    float sum[LANES] = {0}, high[LANES], about[LANES] = {0}, steps[5][LANES] = {{0}};
    const float area = (float)(side * side);
    for (int j = 0; j < LANES; j++) high[j] = from[j];
    for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x += LANES)
            for (int j = 0; j < LANES; j++) {
                const float value = from[y * row + x + j];
                sum[j] += value;
                high[j] = value > high[j] ? value : high[j];
            }
    const float level = lanes_total(sum) / area;
    for (int64_t y = 0; y < side; y++)
        for (int64_t x = 0; x < side; x += LANES) {
            const float *here = from + y * row + x, *next = here + row, *third = next + row;
            for (int j = 0; j < LANES; j++) {
                about[j] += fabsf(here[j] - level);
                steps[0][j] += fabsf(here[j + 1] - here[j]);
                steps[1][j] += fabsf(next[j] - here[j]);
                steps[2][j] += fabsf(next[j + 1] - here[j]);
                steps[3][j] += fabsf(here[j + 2] - here[j]);
                steps[4][j] += fabsf(third[j] - here[j]);
            }
        }
    for (int j = 1; j < LANES; j++) high[0] = high[j] > high[0] ? high[j] : high[0];
    out[0] = lanes_total(about) / area;
    out[1] = high[0] - level;
    for (int lag = 0; lag < 5; lag++) out[2 + lag] = lanes_total(steps[lag]) / area;
    out[KINDS - 1] = level;
}

/* the numbers of the corners of one band: of four the mean of the two in the middle */
static float *corners_of(const float *band, int64_t row, int64_t height, int64_t width, int64_t side, float *out) {
    float values[4][KINDS];
    const int64_t down = height - side - 2, right = width - side - 2;
    for (int corner = 0; corner < 4; corner++)
        astroml_square(band + (corner / 2 ? down : 0) * row + (corner % 2 ? right : 0), row, side, values[corner]);
    for (int kind = 0; kind < KINDS; kind++) {
        float sum = 0, low = values[0][kind], high = low;
        for (int corner = 0; corner < 4; corner++) {
            const float value = values[corner][kind];
            sum += value;
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        *out++ = 0.5f * (sum - high - low);
    }
    return out;
}

/* means of square blocks of a plane */
static float *blocks_of(const float *plane, int64_t height, int64_t width, int64_t block, float *row, float *out) {
    const float factor = 1.0f / (float)(block * block);
    for (int64_t y = 0; y + block <= height; y += block) {
        memcpy(row, plane + y * width, (size_t)width * 4);
        for (int64_t j = 1; j < block; j++) astroml_added(row, plane + (y + j) * width, width, 1.0f);
        for (int64_t x = 0; x + block <= width; x += block) {
            float sum = 0;
            for (int64_t i = 0; i < block; i++) sum += row[x + i];
            *out++ = sum * factor;
        }
    }
    return out;
}

/* the numbers of networks.stamp_statistics.PixelSums of each stamp, in its order; sides are larger than a corner and 2 */
int astroml_statistics(const Planes *image, const Shape *size, const Tables *tables, float *out) {
    static const int64_t lags[3][2] = {{0, 1}, {1, 0}, {2, 2}};
    const int64_t height = size->height, width = size->width, bands = size->bands, area = height * width;
    const int64_t quarter = (height / 2 + 1) * (width / 2 + 1), wide = tables->wide.rings;
    float *whole = malloc((size_t)(area * 2 + quarter + width + 64) * 4);
    if (!whole) return 0;
    float *plane = whole + area, *folded = plane + area, *row = folded + quarter;
    for (int64_t stamp = 0; stamp < size->stamps; stamp++) {
        memset(whole, 0, (size_t)area * 4);
        for (int64_t b = 0; b < bands; b++) {
            const float *pixels = floats(image, stamp, b);
            for (int64_t y = 0; y < height; y++) astroml_added(whole + y * width, pixels + y * image->row, width, 1.0f);
            astroml_folded(pixels, NULL, image->row, height, width, row, folded);
            out = weighted(folded, &tables->light, quarter, out);
        }
        astroml_scaled(whole, whole, area, 0.0f, 1.0f / (float)bands);
        for (int64_t b = 0; b < 2 * bands - 1; b++) {
            const float *one = floats(image, stamp, b % bands), *two = floats(image, stamp, b < bands ? b : b - bands + 1);
            astroml_folded(one, two, image->row, height, width, row, folded);
            out = weighted(folded, &tables->wide, quarter, out);
        }
        astroml_folded(whole, whole, width, height, width, row, folded);
        out = weighted(folded, &tables->all, quarter, out);
        astroml_unlike(whole, height, width, plane);
        astroml_folded(plane, plane, width, height, width, row, folded);
        out = weighted(folded, &tables->odd, quarter, out);
        for (int lag = 0; lag < 3; lag++) {
            astroml_steps(whole, height, width, lags[lag][0], lags[lag][1], plane);
            astroml_folded(plane, NULL, width, height, width, row, folded);
            out = weighted(folded, &tables->wide, quarter, out);
            for (int64_t ring = 0; ring < wide; ring++) out[ring - wide] *= tables->steps[lag * wide + ring];
        }
        for (int64_t b = 0; b < bands; b++)
            out = corners_of(floats(image, stamp, b), image->row, height, width, tables->corner, out);
        out = blocks_of(whole, height, width, tables->block, row, out);
    }
    free(whole);
    return 1;
}

/* digest of this file when it was compiled: a library of other sources is not used */
#ifndef ASTROML_SOURCE
#define ASTROML_SOURCE ""
#endif
const char *astroml_source(void) { return ASTROML_SOURCE; }
