"""FITS files as observatories lay them out, small and made up, with the role of every plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

SHAPE = (24, 28)

SKY = {
    **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 14.0, "CRPIX2": 12.0, "CRVAL1": 150.0, "CRVAL2": 2.0},
    **{"CD1_1": -5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5e-5},
}


def pixels(role: str, seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Values such as a plane of that role has."""
    rng = np.random.default_rng(seed)
    if role in ("image", "light"):
        values = rng.normal(10 if role == "image" else 0, 2, shape)
        values[..., 10:13, 8:11] += 200
        return values.astype("f4")
    if role in ("mask", "labels"):
        values = np.zeros(shape, "i4")
        values[..., 10:13, 8:11] = 1 if role == "mask" else 7
        return values
    level = {"variance": 4.0, "std": 2.0, "weight": 0.25, "exposure": 300.0}.get(role)
    if level is not None:
        return (level * rng.uniform(0.9, 1.1, shape)).astype("f4")
    if role == "psf":
        y, x = np.mgrid[-10:11, -10:11]
        return np.exp(-(x**2 + (y + 0.2 * x) ** 2 + 0.3 * x) / 8).astype("f4")
    return (5 + np.add.outer(np.arange(shape[-2]), np.arange(shape[-1])) / 9 + 0 * rng.random(shape)).astype("f4")


@dataclass(frozen=True)
class P:
    """One plane."""

    name: str
    """EXTNAME; "" for none."""
    role: str
    cards: dict[str, Any] = field(default_factory=dict)
    version: int | None = None
    shape: tuple[int, ...] = SHAPE
    values: str = ""
    """Role whose values it has, where they are not those of its own."""
    sky: bool = True


@dataclass(frozen=True)
class Layout:
    """One file: the first plane goes into the primary HDU where it has no name."""

    observatory: str
    file: str
    planes: tuple[P, ...]
    primary: dict[str, Any] = field(default_factory=dict)
    compressed: bool = False

    def write(self, folder: Path, *, turned: bool = False) -> tuple[Path, list[P]]:
        """The file, and its planes in their order; `turned` reverses the extensions, as position must not matter."""
        hdus: list[Any] = []
        order = list(self.planes)
        first = order.pop(0) if order and not order[0].name and not self.compressed else None
        order = order[::-1] if turned else order
        hdus.append(fits.PrimaryHDU(header=fits.Header(self.primary)) if first is None else self._hdu(first, 0))
        hdus += [self._hdu(plane, number) for number, plane in enumerate(order, 1)]
        path = folder / self.file
        fits.HDUList(hdus).writeto(path, output_verify="silentfix")
        return path, order if first is None else [first, *order]

    def _hdu(self, plane: P, number: int) -> Any:
        cards = {**(SKY if plane.sky else {}), **({} if number else self.primary), **plane.cards}
        data = pixels(plane.values or plane.role, number + len(plane.name), plane.shape)
        if plane.role == "psf" or plane.values == "psf":
            cards = plane.cards
        header = fits.Header()
        header.update(cards)
        if number == 0:
            return fits.PrimaryHDU(data, header)
        if self.compressed:
            return fits.CompImageHDU(data, header, **({"name": plane.name} if plane.name else {}))
        return fits.ImageHDU(data, header, **({"name": plane.name} if plane.name else {}), ver=plane.version)


def _single(observatory: str, primary: dict[str, Any], **files: str) -> Iterator[Layout]:
    """Files of one unnamed plane: name (with __ for - and _DOT_ for .) -> role."""
    for name, role in files.items():
        file = name.replace("__", "-").replace("_DOT_", ".") + ".fits"
        yield Layout(observatory, file, (P("", role),), primary)


def _detectors(names: tuple[str, ...], *roles: tuple[str, str]) -> tuple[P, ...]:
    """Planes of several detectors, each on its own piece of sky."""
    return tuple(
        P(pattern.format(name), role, {"CRVAL1": 150.0 + number / 10})
        for number, name in enumerate(names)
        for pattern, role in roles
    )


_MP = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5}
_ESO = {"HDUCLASS": "ESO", "HDUCLAS1": "IMAGE"}


def layouts() -> Iterator[Layout]:
    """All layouts."""
    afw = (P("IMAGE", "image"), P("MASK", "mask", _MP), P("VARIANCE", "variance"), P("KERNEL", "other", shape=(9, 8)))
    yield Layout("LSST afw", "calexp-1234-22.fits", afw)
    yield Layout("HSC", "calexp-HSC-I-9813-4,4.fits", afw[:3], {"INSTRUME": "HSC"})
    yield Layout(
        "lsst-images",
        "visit_image_LSSTCam_r.fits",
        (
            *(P("IMAGE", "image", {"BUNIT": "nJy"}), P("MASK", "mask", {"MSKN0000": "BAD", "MSKM0000": 1})),
            *(P("VARIANCE", "variance"), P("NOISE_REALIZATIONS", "other", values="light")),
            P("MASK_FRACTIONS", "other"),
        ),
    )
    yield Layout("DECam CP ooi", "c4d_170316_062107_ooi_z_ls9.fits", _detectors(("N2", "N3", "S1"), ("{}", "image")))
    yield Layout("DECam CP oow", "c4d_170316_062107_oow_z_ls9.fits", _detectors(("N2", "N3", "S1"), ("{}", "weight")))
    yield Layout("DECam CP ood", "c4d_170316_062107_ood_z_ls9.fits", _detectors(("N2", "N3", "S1"), ("{}", "mask")))
    yield Layout("DES", "D00226647_r_c47.fits", (P("SCI", "image"), P("MSK", "mask"), P("WGT", "weight")))
    legacy = {
        "image__g": "image",
        "invvar__g": "weight",
        "nexp__g": "exposure",
        "model__g": "other",
        "maskbits": "mask",
    }
    legacy |= {"chi2__g": "other", "galdepth__g": "other", "psfsize__r": "other", "blobmodel__g": "other"}
    for name, role in legacy.items():
        file = f"legacysurvey-1866p257-{name.replace('__', '-')}.fits.fz"
        values = {"other": "image"}.get(role, "")
        yield Layout("Legacy Survey", file, (P("", role, values=values),), compressed=True)
    yield Layout("SDSS frame", "frame-r-001000-1-0100.fits", (P("", "image", {"BUNIT": "nanomaggy"}),))
    ps1 = "rings.v3.skycell.1004.016.stk.r.unconv"
    for part, role in {"": "image", ".mask": "mask", ".wt": "variance", ".exp": "exposure", ".num": "exposure"}.items():
        yield Layout("Pan-STARRS", f"{ps1}{part}.fits", (P("", role),), compressed=True)
    yield from _single(
        "ZTF",
        {"TELESCOP": "Palomar 48-inch"},
        **{"ztf_2020_000535_zr_c11_o_q3_sciimg": "image", "ztf_2020_000535_zr_c11_o_q3_mskimg": "mask"},
        **{"ztf_000535_zr_c11_q3_refimg": "image", "ztf_000535_zr_c11_q3_refunc": "std"},
        **{"ztf_000535_zr_c11_q3_refcov": "exposure"},
    )
    yield from _single(
        "AllWISE",
        {"TELESCOP": "WISE"},
        **{"1497p015_ac51__w1__int__3": "image", "1497p015_ac51__w1__unc__3": "std"},
        **{"1497p015_ac51__w1__cov__3": "exposure", "1497p015_ac51__w1__msk__3": "mask"},
    )
    yield from _single(
        "unWISE",
        {"MAGZP": 22.5},
        **{"unwise__1866p257__w1__img__m": "image", "unwise__1866p257__w1__invvar__m": "weight"},
        **{"unwise__1866p257__w1__std__m": "std", "unwise__1866p257__w1__n__m": "exposure"},
    )
    yield from _single("2MASS", {"TELESCOP": "2MASS"}, aJ_asky_990502n0840256="image")
    for name, role in {"w20200101_01234_st": "image", "w20200101_01234_st_conf": "exposure"}.items():
        planes = tuple(P("", role, {"CRVAL1": 151.0 + n}) for n in range(3))
        yield Layout("UKIDSS, VISTA", f"{name}.fits", (P("DET1.CHIP1", role), *planes))
    yield from _single(
        "Spitzer",
        {"TELESCOP": "Spitzer", "BUNIT": "MJy/sr"},
        **{"SPITZER_I1_6213632_0000_5_E1_maic": "image", "SPITZER_I1_6213632_0000_5_E1_munc": "std"},
        **{"SPITZER_I1_6213632_0000_5_E1_mcov": "exposure", "SPITZER_I1_6213632_0000_5_bimsk": "mask"},
        **{"SPITZER_I1_6213632_0001_cbcd": "image", "SPITZER_I1_6213632_0001_cbunc": "std"},
    )
    yield from _single(
        "GALEX",
        {"TELESCOP": "GALEX"},
        **{"AIS_1_sg01__nd__int": "image", "AIS_1_sg01__nd__cnt": "image", "AIS_1_sg01__nd__rrhr": "exposure"},
        **{"AIS_1_sg01__nd__skybg": "other", "AIS_1_sg01__nd__flags": "mask", "AIS_1_sg01__nd__objmask": "labels"},
    )
    hst = {"TELESCOP": "HST", "INSTRUME": "ACS"}
    yield Layout("HST drz", "hst_acs_f814w_drz.fits", (P("SCI", "image"), P("WHT", "weight"), P("CTX", "other")), hst)
    chip = (("SCI", "image"), ("ERR", "std"), ("DQ", "mask"))
    yield Layout(
        "HST flc",
        "j94f05bgq_flc.fits",
        (
            *(P(n, r, {"CRVAL1": 150.0 + v}, v) for v in (1, 2) for n, r in chip),
            *(P("D2IMARR", "other", {}, v, (1, 40), sky=False) for v in (1, 2)),
            *(P("WCSDVARR", "other", {}, v, (9, 17), sky=False) for v in (1, 2, 3, 4)),
        ),
        hst,
    )
    yield from _single("HST one plane each", hst, hst_f814w_drz_sci="image", hst_f814w_drz_wht="weight")
    parts = ("VAR_POISSON", "VAR_RNOISE", "VAR_FLAT")
    others = tuple(P(name, "other", values="variance") for name in parts)
    i2d = (P("SCI", "image"), P("ERR", "std"), P("CON", "other", shape=(2, *SHAPE)), P("WHT", "weight"), *others)
    yield Layout("JWST i2d", "jw01324_nircam_f200w_i2d.fits", i2d, {"TELESCOP": "JWST"})
    cal = (P("SCI", "image"), P("ERR", "std"), P("DQ", "mask"), P("AREA", "other"), P("WAVELENGTH", "other"), *others)
    yield Layout("JWST cal", "jw01324001001_nrca1_cal.fits", cal, {"TELESCOP": "JWST"})
    vis = tuple((f"{{}}.{n}", r) for n, r in (("SCI", "image"), ("RMS", "std"), ("FLG", "mask")))
    yield Layout("Euclid VIS", "EUC_VIS_SWL-DET-002681.fits", _detectors(("1-1.E", "1-1.F", "2-3.G"), *vis))
    group = [(f"{band}_FLUX", "image") for band in ("VIS", "NIR_Y", "NIR_J", "NIR_H")]
    group += [(name.replace("FLUX", "RMS"), "std") for name, _ in group]
    psfs = [(name.replace("FLUX", "PSF"), "psf") for name, _ in group[:4]]
    yield Layout("Euclid cutout", "group.fits", tuple(P(n, r) for n, r in (*group, *psfs)))
    yield from _single(
        "Euclid MER",
        {"INSTRUME": "VIS"},
        **{"EUC_MER_BGSUB__MOSAIC__VIS_TILE102018211": "image", "EUC_MER_MOSAIC__VIS__RMS_TILE102018211": "std"},
        **{"EUC_MER_MOSAIC__VIS__FLAG_TILE102018211": "mask", "EUC_MER_BGMOD__VIS_TILE102018211": "other"},
    )
    data = {**_ESO, "HDUCLAS2": "DATA", "ERRDATA": "STAT", "QUALDATA": "DQ"}
    stat = {**_ESO, "HDUCLAS2": "ERROR", "HDUCLAS3": "MSE", "SCIDATA": "DATA"}
    quality = {**_ESO, "HDUCLAS2": "QUALITY", "HDUCLAS3": "FLAG32BIT", "SCIDATA": "DATA"}
    muse = (P("DATA", "image", data), P("STAT", "variance", stat), P("DQ", "mask", quality))
    yield Layout("MUSE", "IMAGE_FOV_0001.fits", muse)
    cube = (P("DATA", "image", shape=(3, *SHAPE)), P("STAT", "variance", shape=(3, *SHAPE)))
    yield Layout("MUSE cube", "DATACUBE_FINAL.fits", (*cube, P("FIELDMAP", "other")))
    odd = (P("A", "image", {**data, "ERRDATA": "B", "QUALDATA": "C"}), P("B", "std", {**stat, "HDUCLAS3": "RMSE"}))
    yield Layout("ESO with names of one letter", "ADP.2020-01-01.fits", (*odd, P("C", "mask", quality)))
    inverse = {**_ESO, "HDUCLAS2": "ERROR", "HDUCLAS3": "INVMSE"}
    manga = (P("FLUX", "image", shape=(4, *SHAPE)), P("IVAR", "weight", inverse, shape=(4, *SHAPE)))
    manga += (P("MASK", "mask", shape=(4, *SHAPE)), P("DISP", "other", shape=(4, *SHAPE)), P("GIMG", "image"))
    yield Layout("MaNGA", "manga-7443-12703-LOGCUBE.fits", (*manga, P("GPSF", "psf"), P("GCORREL", "other")))
    for utype, role in (("StdDev", "std"), ("Variance", "variance")):
        uncert = P("UNCERT", role, {"UTYPE": f"{utype}Uncertainty"}, sky=False)
        yield Layout("CCDData", f"ccd_{role}.fits", (P("", "image"), P("MASK", "mask", sky=False), uncert))
    yield Layout("CCDData", "i.fits", (P("", "image"), P("UNCERT", "weight", {"UTYPE": "InverseVariance"}, sky=False)))
    yield Layout("PRIMARY and VARIANCE", "m_flat.fits", (P("", "image"), P("VARIANCE", "variance", sky=False)))
    for name, role in {"IVAR": "weight", "RMS": "std", "exptime": "exposure", "segm": "labels", "bpm": "mask"}.items():
        yield Layout("PRIMARY and one more", f"own_{name}_1.fits", (P("", "image"), P(name, role, sky=False)))
    yield Layout("FIRST, VLASS", "J0950+1204.fits", (P("", "image", {"BUNIT": "JY/BEAM"}, shape=(1, 1, *SHAPE)),))
    yield from _single(
        "CASA",
        {"BUNIT": "Jy/beam"},
        **{"field_DOT_image_DOT_pbcor": "image", "field_DOT_residual": "other", "field_DOT_mask": "mask"},
        **{"field_DOT_psf": "psf", "field_DOT_rms": "std", "field_DOT_pb": "other"},
    )
    names = (("image", "image"), ("error", "std"), ("coverage", "exposure"), ("flag", "mask"))
    yield Layout("Herschel", "hpacs_25HPPUNIMAPR.fits", tuple(P(n, r) for n, r in names), {"TELESCOP": "Herschel"})
    kids = {"KiDS_150.1_2.2_r_sci": "image", "KiDS_150.1_2.2_r_weight": "weight", "KiDS_150.1_2.2_r_mask": "mask"}
    yield from (Layout("KiDS", f"{name}.fits", (P("", role),)) for name, role in kids.items())
    cfht = {"CFHTLS_W1_r.weight": "weight", "CFHTLS_W1_r.flag": "mask", "CFHTLS_W1_r": "image"}
    yield from (Layout("CFHT", f"{name}.fits", (P("", role),)) for name, role in cfht.items())
    yield Layout("MEF of amplifiers", "raw_0001.fits", tuple(P(f"im{n}", "image", sky=False) for n in range(1, 9)))
    bands = tuple(P(band, "image") for band in ("F606W", "F814W", "F160W"))
    errors = tuple(P(f"{band}_ERR", "std") for band in ("F606W", "F814W", "F160W"))
    yield Layout("bands by name", "cluster_bands.fits", (*bands, *errors))
    yield Layout("alert", "alert.fits", tuple(P(n, "image") for n in ("SCIENCE", "TEMPLATE", "DIFFERENCE")))
    yield Layout("by unit", "unit.fits", (P("", "image", {"BUNIT": "adu"}), P("X", "variance", {"BUNIT": "adu2"})))
    yield Layout("spectrum", "stis.fits", (P("SCI", "other", {"CTYPE1": "LAMBDA", "CTYPE2": "ANGLE"}, values="image"),))
    yield Layout("velocity map", "moment_one.fits", (P("", "other", {"BUNIT": "km/s"}, values="image"),))
    yield Layout("magnitudes", "surface.fits", (P("", "other", {"BUNIT": "mag/arcsec2"}, values="image"),))
    yield Layout("logarithms", "column_density.fits", (P("", "other", {"BUNIT": "dex(cm-2)"}, values="image"),))
    yield Layout("calibration", "frame0001.fits", (P("", "other", {"IMAGETYP": "Flat Field"}, values="image"),))
    strange = (("Science_Data", "image"), ("ErrorMap", "std"), ("Quality-Flags", "mask"), ("psf image", "psf"))
    strange += (("Exposure Map", "exposure"), ("Segmentation.Map", "labels"), ("sky model", "other"))
    yield Layout("other names", "night1.fits", tuple(P(n, r) for n, r in strange))
    more = (
        ("data", "image"),
        ("flux_uncertainty", "std"),
        ("bad_pixels", "mask"),
        ("noise-map2", "std"),
        ("THING", "other"),
    )
    yield Layout("more names", "night2.fits", tuple(P(n, r, values="image" if n == "THING" else "") for n, r in more))
    yield from more_names()
    yield from strangers()
    yield from wrong_guesses()


def more_names() -> Iterator[Layout]:
    """Names of survey files as they are distributed, and headers that tell what is no image of light."""
    for band in ("VIS", "NIR-H", "DECAM-g", "HSC-z"):
        parts = {f"BGSUB-MOSAIC-{band}": "image", f"MOSAIC-{band}-RMS": "std", f"MOSAIC-{band}-FLAG": "mask"}
        parts |= {f"BGMOD-{band}": "other", f"GRID-PSF-{band}": "psf"}
        for part, role in parts.items():
            file = f"EUC_MER_{part}_TILE102018665-ACBD03_20241018T143710.276838Z_00.00.fits"
            yield Layout("Euclid MER tiles", file, (P("", role),))
    bits = tuple(P(name, "mask") for name in ("MASKBITS", "WISEM1", "WISEM2"))
    yield Layout("Legacy Survey DR10", "legacysurvey-1500p020-maskbits.fits.fz", bits, compressed=True)
    for part, role in {"depth": "other", "psfdepth": "other", "image": "image", "invvar": "weight"}.items():
        plane = P(f"{part}_r", role) if part in ("image", "invvar") else P("", role, values="image")
        yield Layout("Legacy Survey DR10", f"legacysurvey-1500p020-{part}-r.fits.fz", (plane,), compressed=True)
    basic = {"bcd": "image", "bunc": "std", "cunc": "std", "bdmsk": "mask", "mosaic": "image", "mosaic_unc": "std"}
    yield from _single("Spitzer BCD", {}, **{f"SPITZER_I1_1_0001_0000_2_{part}": role for part, role in basic.items()})
    for part, role in {"c0m": "image", "c1m": "mask"}.items():
        chips = tuple(P("SCI", role, {"CRVAL1": 150.0 + n}, n) for n in (1, 2))
        yield Layout("HST WFPC2", f"u2ou0101t_{part}.fits", chips, {"TELESCOP": "HST", "INSTRUME": "WFPC2"})
    yield from _single("KiDS DR4", {}, **{f"KiDS_DR4.0_1.0_r_{n}": r for n, r in (("sci", "image"), ("wei", "weight"))})
    dark = {"DATA-TYP": "DOMEFLAT"}, {"HIERARCH ESO DPR TYPE": "FLAT,SKY"}, {"HIERARCH ESO DPR CATG": "CALIB"}
    dark += {"OBSTYPE": "SKYFLAT"}, {"KOAIMTYP": "flatlamp"}, {"HIERARCH ESO PRO CATG": "MASTER_BIAS"}, {"BUNIT": "K"}
    dark += {"BUNIT": "%"}, {"BUNIT": "deg"}, {"CTYPE3": "STOKES", "CRVAL3": 2.0, "CRPIX3": 1.0, "CDELT3": 1.0}
    dark += ({"CONTENT": "EPIC BACKGROUND MAP", "TELESCOP": "XMM"},)
    for number, cards in enumerate(dark):
        shape = (1, *SHAPE) if "CTYPE3" in cards else SHAPE
        yield Layout("no light by its header", f"n{number}.fits", (P("SCI", "other", cards, None, shape, "image"),))
    epic = {"EPIC IMAGE": "image", "EPIC EXPOSURE MAP": "exposure", "EPIC DETECTION MASK": "mask"}
    for number, (content, role) in enumerate(epic.items()):
        yield Layout("XMM", f"P0123M1S001{number}.fits", (P("", role, {"CONTENT": content, "TELESCOP": "XMM"}),))
    chips = {"CTYPE3": "GROUP_NUMBER", "TELESCOP": "HST", "INSTRUME": "WFPC"}
    yield Layout("HST WFPC groups", "w0bs0102t_c0f.fits", (P("", "other", chips, shape=(4, *SHAPE), values="image"),))
    light = {"DATA-TYP": "OBJECT"}, {"HIERARCH ESO DPR TYPE": "STD", "HIERARCH ESO DPR CATG": "CALIB"}
    light += {"BUNIT": "K", "BMAJ": 0.01}, {"HIERARCH ESO PRO CATG": "SCIENCE_IMAGE", "IMAGETYP": "FLATTENED"}
    for number, cards in enumerate(light):
        yield Layout("light by its header", f"l{number}.fits", (P("", "image", cards),))
    maps = (P("EMLINE_GFLUX", "image", {"HDUCLAS2": "DATA"}), P("STELLAR_VEL", "other", {"HDUCLAS2": "DATA"}))
    inverse = {"HDUCLAS2": "ERROR", "HDUCLAS3": "INVMSE"}
    maps += (P("STELLAR_VEL_IVAR", "other", {**inverse, "SCIDATA": "STELLAR_VEL"}, values="weight"),)
    maps += (P("VELOCITIES", "other", {"HDUCLAS2": "DATA", "BUNIT": "km/s"}, values="image"), P("EMLINE_SEW", "other"))
    yield Layout("MaNGA MAPS", "manga-8485-1901-MAPS-HYB10.fits", maps)
    shape = (3, *SHAPE)
    ints = tuple(P(name, "other", shape=shape, values=role) for name, role in (("SCI", "image"), ("ERR", "std")))
    yield Layout("JWST integrations", "jw01234_nrca1_rateints.fits", ints, {"TELESCOP": "JWST"})
    two = (P("SCI", "unclear", values="image"), P("SCI_BKSUB", "unclear", values="image"), P("ERR", "std"))
    yield Layout("corrected beside it", "ceers_f115w_i2d.fits", (*two, P("BKGMASK", "other", values="mask")))


def strangers() -> Iterator[Layout]:
    """Files of observatories that no rule names."""
    parts = ("SAMP", "other"), ("TIME", "exposure")
    wfc3 = (("SCI", "image"), ("ERR", "std"), ("DQ", "mask"), *parts)
    yield Layout("HST WFC3 flt", "ib6w_flt.fits", tuple(P(n, r) for n, r in wfc3), {"TELESCOP": "HST"})
    gemini = (("SCI", "image"), ("VAR", "variance"), ("DQ", "mask"), ("OBJMASK", "labels"))
    yield Layout("Gemini", "N20200101S0001_stack.fits", tuple(P(n, r) for n, r in gemini))
    kcwi = (
        P("", "image", shape=(3, *SHAPE)),
        *(P(n, r, shape=(3, *SHAPE)) for n, r in (("MASK", "mask"), ("UNCERT", "std"))),
    )
    yield Layout("KCWI", "kb200101_00001_icubed.fits", kcwi)
    tess = (P("CAMERA.CCD 1.1 cal", "image"), P("CAMERA.CCD 1.1 uncert", "std"))
    yield Layout("TESS", "tess2018206-s0001-1-1-0120-s_ffic.fits", tess)
    yield Layout("TESS pixels", "tess-s0001-0120-s_tp.fits", (P("APERTURE", "other", values="mask"),))
    califa = (("ERROR", "std"), ("ERRWEIGHT", "weight"), ("BADPIX", "mask"), ("FIBCOVER", "exposure"))
    yield Layout("CALIFA", "NGC5000.V500.rscube.fits", (P("", "image"), *(P(n, r) for n, r in califa)))
    yield Layout(
        "SCUBA-2", "scuba2_cal.fits", (P("", "image", shape=(1, *SHAPE)), P("VARIANCE", "variance", shape=(1, *SHAPE)))
    )
    eso = {"HDUCLAS2": "DATA"}
    maps = (("SPX_MFLUX", "image"), ("SPX_MFLUX_IVAR", "weight"), ("SPX_SNR", "other"), ("BINID", "other"))
    yield Layout("MaNGA maps", "manga-MAPS.fits", tuple(P(n, r, eso if r != "weight" else {}) for n, r in maps))
    yield from _single(
        "eROSITA",
        {"TELESCOP": "eROSITA"},
        **{"em01_020_Image_c020": "image", "em01_020_ExpMap_c020": "exposure", "em01_020_BkgMap_c020": "other"},
        **{"em01_020_DetMask_c020": "mask"},
    )
    yield from _single(
        "LoTSS", {"BUNIT": "JY/BEAM"}, P000_mosaic="image", P000_mosaic_rms="std", P000_mosaic_weights="weight"
    )
    alma = {"image.pbcor": "image", "pb": "other", "mask": "mask", "residual": "other"}
    name = "member.uid___A001.J1058_sci.spw25.mfs.I"
    yield from (Layout("ALMA", f"{name}.{part}.fits", (P("", role),)) for part, role in alma.items())
    yield from _single("SWarp", {}, coadd="image", coadd_DOT_weight="weight", coadd_area="other")
    yield from _single("SExtractor", {}, check_seg="labels", check_bkg_rms="std", check_background="other")
    cp = {"osi": "image", "osw": "weight", "osd": "mask", "ope": "exposure"}
    yield from (
        Layout("DECam CP stack", f"c4d_170316_062107_{n}_z_ls9.fits.fz", (P("", r),), compressed=True)
        for n, r in cp.items()
    )
    yield from _single(
        "AKARI", {}, **{"2700_N60_image": "image", "2700_N60_sigma": "std", "2700_N60_nscan": "exposure"}
    )
    yield Layout(
        "spectra in rows", "spPlate-0266-51630.fits", (P("", "other", {"COEFF0": 3.58}, sky=False, values="image"),)
    )
    yield Layout("DRAGONS pixels", "jw_uncal.fits", (P("SCI", "image"), P("PIXELDQ", "mask"), P("GROUPDQ", "mask")))


def wrong_guesses() -> Iterator[Layout]:
    """Files that tempt: names that tell another thing than the pixels, and planes that nothing tells apart."""
    yield Layout("name of a star", "std_star_HD1234.fits", (P("", "image"),))
    yield Layout("name of a survey", "sky_survey_model_weighting.fits", (P("", "image"),))
    yield Layout("mask in the name alone", "m31_mask_applied.fits", (P("", "image"),))
    yield Layout("weight in the name alone", "minimum_weight_stack.fits", (P("", "image"),))
    yield Layout("treated", "m51_psf_matched.fits", (P("", "image"),))
    yield Layout("error that is light", "shifted.fits", (P("SCI", "image"), P("ERR", "other", values="light")))
    yield Layout("mask that is light", "odd_mask.fits", (P("SCI", "image"), P("MASK", "other", values="image")))
    yield Layout("two without names", "pair.fits", (P("", "unclear", values="image"), P("", "unclear", values="std")))
    lone = (P("", "unclear", values="image"), P("FOO", "unclear", values="std", sky=False))
    yield Layout("one without WCS", "pair2.fits", lone)
    yield Layout("plain numbers", "three.fits", tuple(P(f"EXT{n}", "unclear", values="image") for n in (1, 2, 3)))
    apart = (P("", "image"), P("", "image", {"CRVAL2": 9.0}))
    yield Layout("two places", "places.fits", apart)
    unknown = P("UNCERT", "other", {"UTYPE": "UnknownUncertainty"}, values="std")
    yield Layout("kind of errors unsaid", "u.fits", (P("", "image"), unknown))
