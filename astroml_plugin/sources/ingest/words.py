"""Words by which observatories name the planes of a file, in EXTNAME and in file names, and the role each tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

IMAGE, VARIANCE, STD, WEIGHT, MASK = "image", "variance", "std", "weight", "mask"
PSF, EXPOSURE, LABELS, OTHER = "psf", "exposure", "labels", "other"
UNCLEAR = "unclear"

ROLES = (IMAGE, VARIANCE, STD, WEIGHT, MASK, PSF, EXPOSURE, LABELS, OTHER)
"""Roles that a plane can have: light, three ways to tell its noise, bits, PSF, exposure, labels, none of these."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NOT_LIGHT = """
    POISSON RNOISE READNOISE FWHM PSFSIZE PSFDEPTH GALDEPTH SEEING FRACTION FRACTIONS REALIZATION REALIZATIONS
    CORRECTION CORRECTIONS CTX CON CONTEXT D2IMARR WCSDVARR WCSCORR WCS CHI CHI2 CHISQ RESIDUAL RESIDUALS RESID
    RESPONSE TRANSMISSION THROUGHPUT PIXAREA AREA WAVELENGTH WAVE LAMBDA DISP PREDISP SPECRES SPECRESD LSF
    FIELDMAP GCORREL RCORREL ICORREL ZCORREL KERNEL THUMBNAIL PREVIEW JPEG HDRTAB ASDF BIAS DARK FLAT FLATFIELD OVERSCAN
    APCORR POINTING XPOS YPOS VELOCITY DISPERSION RAWX RAWY DEPTH EFFTIME CURVATURE ALPHA SAMP GAIN ZEROPOINT
    SNR BINID SKYCOO ELLCOO REFOUT ZEROFRAME TSYS NEFF COVAR COVARIANCE CORRELATION
    VEL GVEL SVEL EW GEW SEW FOM LFOM GSIGMA SSIGMA TPLSIGMA INSTSIGMA SIGMACORR SPECINDEX RATIO METALLICITY REDDENING
    EBV TEMPERATURE TDUST BKGMASK SRCMASK SOURCEMASK SKYMASK
"""
_SKY_BACKGROUND = """
    SKY SKYBG SKYMAP BACKGROUND BACKGRND BACKGR BKG BKGD BKGRND BGMOD BGD BG MODEL BLOBMODEL PB PBEAM APERTURE
"""
_PRECEDENCE: tuple[tuple[str, str], ...] = (
    (_NOT_LIGHT, OTHER),
    ("PSF PSFS PRF PSFMODEL PSFIMG PSFCENT DAOPSFCENT", PSF),
    (
        "MASK MASKS MSK DQ DQA DQF DQM FLG FLAG FLAGS QUALITY QUAL DATAQUALITY BPM BADPIX BADPIXEL BADPIXELS "
        "BADPIXMASK BITMASK MASKBITS WISEM PIXMASK BAD DEFECTS IMASK BIMSK BDMSK BBMSK BMASK MSKIMG PIXELDQ GROUPDQ",
        MASK,
    ),
    ("SEG SEGM SEGMENTATION SEGMAP LABEL LABELS SEGMENTS OBJMASK BLOBS BLOBMAP CHECKSEG DETMAP", LABELS),
    (
        "IVAR INVVAR INVVARIANCE INVERSEVARIANCE INVVARIMAGE IVM INVMSE WEIGHT WEIGHTS WHT WGT WEI WEIGHTMAP WHTMAP",
        WEIGHT,
    ),
    ("VARIANCE VARIANCES VAR STAT MSE VARMAP", VARIANCE),
    (
        "ERR ERROR ERRORS RMS STD STDDEV STDEV SIGMA SIG UNCERT UNCERTAINTY UNCERTAINTIES UNC UNCIMG NOISE RMSE RMSMAP "
        "ERRMAP NOISEMAP FLUXERR SCIERR MUNC BUNC CUNC CBUNC REFUNC EDATA",
        STD,
    ),
    (
        "EXP EXPOSURE EXPOSURES EXPTIME EXPMAP TEXP NEXP NIMAGE NIMAGES NOBS COVERAGE COV COVMAP RRHR COVG MCOV REFCOV "
        "CONF CONFIDENCE CONFMAP NUMFRAMES NCOADD HITS NHITS TIME INTTIME NSCAN NSAM FIBCOVER COVER",
        EXPOSURE,
    ),
    (_SKY_BACKGROUND, OTHER),
    (
        "IMAGE IMAGES IMG IM SCI SCIENCE SCIIMG DATA FLUX SIGNAL INT INTENSITY COADD STACK CNT COUNTS BGSUB "
        "INTBGSUB CUTOUT TEMPLATE REFERENCE REFIMG DIFFERENCE DIFF DRZ DRC CALIBRATED MAIC BCD CBCD PBCOR "
        "SURFACEBRIGHTNESS BRIGHTNESS RATE CALEXP",
        IMAGE,
    ),
)
_ROLE = {word: (rank, role) for rank, (words, role) in reversed([*enumerate(_PRECEDENCE)]) for word in words.split()}

_ENDINGS = (
    "IVAR",
    "INVVAR",
    "WEIGHT",
    "MASK",
    "FLAGS",
    "FLAG",
    "PSF",
    "ERR",
    "RMS",
    "VAR",
    "WHT",
    "SIGMA",
    "NOISE",
    "IMG",
)
"""Words that are also written without a space after another one: FLUXERR, GPSF, SCIMASK."""

_ADDED = re.compile(r"(MAP|IMAGE|IMG|PLANE|ARRAY|DATA|EXT|HDU|LAYER)$")
_TELLING = _words(
    """
    TEMPLATE REFERENCE REFIMG DIFFERENCE DIFF
    """
)
"""Words for an image that also tell which: they stay in the key."""

_FILLING = _words(
    """
    PIXEL PIX TIME MAP PLANE ARRAY EXT HDU LAYER EXTENSION
    """
)

_FILE_WORDS = _words(
    """
    WEIGHT WEIGHTS WHT WGT WEIGHTMAP IVAR INVVAR IVM RMS RMSMAP UNC UNCERT UNCERTAINTY ERR ERROR SIGMA NOISEMAP
    VARIANCE MASK MSK DQ FLAG FLAGS FLG MASKBITS BADPIX BPM SEG SEGM SEGMENTATION SEGMAP PSF PSFS PRF EXPMAP
    EXPTIME NEXP COV COVERAGE CONF RRHR NSCAN NSAM CHI CHI2 RESIDUAL RESID GALDEPTH PSFDEPTH PSFSIZE SKYBG BGMOD BKG
    MSKIMG REFUNC REFCOV DAOPSFCENT MUNC MCOV BUNC CUNC CBUNC BIMSK BDMSK BBMSK OBJMASK TDUST
    """
)
"""Words that count anywhere in a file name; others name objects and people too (std, sky, exp, var)."""

_AFTER = re.compile(r"[A-Z]|\d+[A-Z]?|[A-Z]{1,4}\d+|TILE\d*|IMAGES?|IMG|MAP|EXTENSION|FITS|FINAL")
"""Words that may follow the one that tells a role in a file name: letters of bands, numbers, versions and the like."""

_IMAGE_FILES = _words("IMAGE IMG INT SCI SCIENCE DATA SCIIMG REFIMG MAIC DRZ DRC FLUX C0M C0F")
"""Words for the image in names of files that come in several parts."""

_PIPELINE = re.compile(r"O[OKPS][IWED]")
"""NOIRLab's Community Pipeline: object, kind of product, and image, weight, exposure or data quality."""

_LAST_WORDS = _words(
    """
    VAR STD STAT EXP NOISE WT WEI SKY BACKGROUND PB AREA
    """
)
"""Words that count as the last of a file name."""

_OF_SURVEYS: tuple[tuple[frozenset[str], Mapping[str, str]], ...] = (
    (
        _words("EUC MER"),
        {
            **{"RMS": STD, "FLAG": MASK, "GRID": PSF, "CATALOG": PSF, "PSF": PSF, "BGMOD": OTHER},
            **{"SEGMAP": LABELS, "EXPTIME": EXPOSURE, "BGSUB": IMAGE, "MOSAIC": IMAGE},
        },
    ),
    (
        _words("LEGACYSURVEY"),
        {
            **{"MASKBITS": MASK, "INVVAR": WEIGHT, "NEXP": EXPOSURE, "IMAGE": IMAGE},
            **dict.fromkeys(("MODEL", "BLOBMODEL", "CHI2", "DEPTH", "GALDEPTH", "PSFDEPTH", "PSFSIZE", "RESID"), OTHER),
        },
    ),
)
"""Words of a survey's file names -> the words that tell the role there, wherever they stand; the first counts."""

_HASHED = re.compile(r"TILE\d+")
"""In names of Euclid: what follows differs from file to file of one tile."""

_WFPC2 = re.compile(r"U\w{6,8}_[CD]([01])[MFH]", re.IGNORECASE)
"""Files of WFPC2: c0m is calibrated, c1m its data quality, each with planes SCI."""

_SPITZER = {"BCD": "BCD", "BUNC": "BCD", "CBCD": "CBCD", "CBUNC": "CBCD", "CUNC": "CBCD"}
"""Image and errors of Spitzer's basic data -> the image that they belong to."""

_BANDS = re.compile(
    r"(?:(?:NIR|VIS|HSC|DECAM|SDSS|LSST|ACS|WFC3|NIRCAM|MIRI|IRAC|MIPS|WISE)_?)?"
    r"(?:[UBVRIGZYJHKLM]S?|[UGRIZY]P|VIS|NIR|FUV|NUV|F\d{3,4}[A-Z]{1,2}\d?|W[1-4]|CH[1-4]|I[1-4]|N\d{3,4}|NB\d+)"
)


_TREATED = _words(
    """
    BKSUB BKGSUB BGSUB SKYSUB BACKSUB BKG SUB SUBTRACTED CORR CORRECTED COR CLEAN CLEANED RAW ORIG ORIGINAL UNCORR NOSUB
    FLATTENED SMOOTH SMOOTHED CONV CONVOLVED UNCONV MATCHED DENOISED DESTRIPED CRCLEAN NOBKG FINAL FILTERED MASKED
    """
)
"""Words by which one image tells that something was done to it: it may stand beside itself without it."""


@dataclass(frozen=True)
class Reading:
    """A name's meaning."""

    role: str
    """One of `ROLES`."""
    word: str
    """The word that tells it."""
    key: str
    """Rest of the name in capitals, "" where there is none: planes of one image share it."""


def tokens_of(name: str) -> list[str]:
    """The words of a name, in capitals."""
    return [token for token in re.split(r"[^A-Za-z0-9]+", name.upper()) if token]


def read_name(name: str) -> Reading | None:
    """Role by an EXTNAME; None where no word of it is known."""
    tokens = tokens_of(name)
    whole = _lookup("".join(tokens))
    if whole is not None and len(tokens) > 1 and not whole[1]:
        return Reading(_ROLE[whole[0]][1], whole[0], "")
    found = [(_ROLE[hit[0]], -position, hit, token) for position, token in enumerate(tokens) if (hit := _lookup(token))]
    if not found:
        return None
    (_, role), place, (word, rest), _ = min(found)
    rest = word + rest if word in _TELLING else f"W{rest}" if word == "WISEM" else rest
    keep = [rest if position == -place else _bare(token) for position, token in enumerate(tokens)]
    return Reading(role, word, "_".join(part for part in keep if part))


def _bare(token: str) -> str:
    """A word as part of the key: "" where it tells a role and no more."""
    return "" if token in _FILLING or (token in _ROLE and token not in _TELLING) else token


def _lookup(token: str) -> tuple[str, str] | None:
    """(known word, what is left of the token) for a token that is or ends with a known word; digits are left."""
    if token in _ROLE:
        return token, ""
    bare = token.rstrip("0123456789")
    digits = token[len(bare) :]
    if bare in _ROLE:
        return bare, digits
    if (short := _ADDED.sub("", bare)) in _ROLE:
        return short, digits
    for ending in _ENDINGS:
        if bare.endswith(ending) and len(bare) > len(ending):
            rest = bare.removesuffix(ending)
            return ending, _bare(rest) + digits
    return None


def read_file_name(stem: str) -> Reading | None:
    """Role by a file's name without folder and suffixes; None where it tells none."""
    tokens = tokens_of(stem)
    if "UNWISE" in tokens and "STD" in tokens:
        return Reading(STD, "STD", "")
    if {"UNWISE", "N"} <= {*tokens} and re.search(r"-n-[mu]$", stem):
        return Reading(EXPOSURE, "N", "")
    if "STK" in tokens or "WRP" in tokens:  # Pan-STARRS: .wt is a variance, .exp and .num count exposures
        last = {"WT": VARIANCE, "EXP": EXPOSURE, "NUM": EXPOSURE, "EXPWT": EXPOSURE, "MASK": MASK}.get(tokens[-1])
        return None if last is None else Reading(last, tokens[-1], "")
    if known := [Reading(role, word, "") for word, role in _of_survey(tokens).items() if word in tokens]:
        return None if known[0].role == IMAGE else known[0]
    if (wfpc2 := _WFPC2.fullmatch(stem)) is not None:
        return Reading(MASK, tokens[-1], "") if wfpc2[1] == "1" else None
    if code := next((token for token in tokens if _PIPELINE.fullmatch(token)), None):
        role = {"W": WEIGHT, "E": EXPOSURE, "D": MASK}.get(code[-1])
        return None if role is None else Reading(role, code, "")
    end = next((token for token in reversed(tokens) if not _is_after(token)), "")
    hit = _lookup(end) if end else None
    if hit is not None and hit[0] == "RMS" and re.search("[A-Z]", hit[1]):  # a word such as "terms"
        hit = None
    found = [(_ROLE[hit[0]], end)] if hit is not None and hit[0] in _FILE_WORDS else []
    if tokens and tokens[-1] in _LAST_WORDS and not found:
        token = "WEIGHT" if tokens[-1] == "WT" else tokens[-1]
        found = [(_ROLE[token], tokens[-1])]
    if not found:
        return None
    (_, role), word = min(found)
    return Reading(role, word, "")


def _of_survey(tokens: list[str]) -> Mapping[str, str]:
    """Words and roles of the survey that a file name tells; none for other files."""
    return next((roles for names, roles in _OF_SURVEYS if names <= {*tokens}), {})


def file_key(stem: str) -> str:
    """The words of a file's name without those that tell a role: an image and its weight have one key."""
    tokens = tokens_of(stem)
    reading = read_file_name(stem)
    if survey := _of_survey(tokens):
        end = next((n for n, token in enumerate(tokens) if _HASHED.fullmatch(token)), len(tokens))
        return "_".join(token for token in tokens[: end + 1] if token not in survey)
    role = set() if reading is None else {reading.word}
    kept = [token for token in tokens if token not in role | _IMAGE_FILES and not _PIPELINE.fullmatch(token)]
    belongs = _SPITZER.get(tokens[-1]) if tokens else None
    return "_".join([token for token in kept if token not in _SPITZER] + ([belongs] if belongs else []))


def shared_keys(stem: str) -> set[str]:
    """Keys of files that may serve this image and others beside it: without its filter, or its step of calibration."""
    words = file_key(stem).split("_")
    return {
        "_".join(words[:n] + words[n + 1 :])
        for n, word in enumerate(words)
        if _BANDS.fullmatch(word) or word in _SPITZER.values()
    }


def _is_after(token: str) -> bool:
    return token not in _FILE_WORDS and bool(_AFTER.fullmatch(token) or is_band(token))


def one_image_twice(one: str, other: str) -> bool:
    """Whether keys of two images differ only in what was done to it, or in a word that nobody knows beside none."""
    left = ["_".join(word for word in key.split("_") if word not in _TREATED) for key in (one, other)]
    if left[0] == left[1]:
        return True
    word = left[0] or left[1]
    telling = is_band(word) or word[-1:].isdigit() or any(known in word for known in _TELLING)
    return "" in left and not telling


def is_band(name: str) -> bool:
    """Whether a name is that of a filter, such as g, NIR_Y, F606W or W1."""
    return bool(_BANDS.fullmatch(name.upper()))


def one_series(names: list[str]) -> bool:
    """Whether names differ in their numbers alone (ccd1, ccd2; N1, S1), or are all those of filters."""
    if len({*names}) < len(names) or not all(names):
        return False
    if all(is_band(name) for name in names):
        return True
    stems = {re.sub(r"\d+", "#", name.upper()) for name in names}
    generic = re.compile(r"^(HDU|EXT|PLANE|LAYER|ARRAY|EXTENSION)?[^A-Z]*#")
    return all("#" in stem and not generic.match(stem) for stem in stems) and len(stems) <= max(2, len(names) // 4)
