"""DICOM files made for tests, with known values and a patient whose name must never be seen again."""

import numpy as np

PATIENT = "Geheimrat^Wilhelmine"
NUMBER = "ID-4711-SECRET"
SECRETS = ("geheimrat", "wilhelmine", "4711-secret", "19210304", "acc-99-hidden")


def dataset(pixels, **tags):
    """A data set of one picture (H, W), (H, W, 3) or several frames (F, H, W), unsigned or signed as its array is."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    pixels = np.asarray(pixels)
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID = generate_uid(), generate_uid()
    d.FrameOfReferenceUID = generate_uid()
    d.PatientName, d.PatientID, d.PatientBirthDate = PATIENT, NUMBER, "19210304"
    d.AccessionNumber, d.PatientSex, d.StudyDate, d.StudyTime = "ACC-99-HIDDEN", "F", "20200101", "120000"
    d.StudyID, d.ReferringPhysicianName = "", ""
    d.Modality, d.InstanceNumber = "CT", 1
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    d.Rows, d.Columns = pixels.shape[:2] if colour or pixels.ndim == 2 else pixels.shape[1:]
    if pixels.ndim == 3 and not colour:
        d.NumberOfFrames = len(pixels)
    d.SamplesPerPixel = 3 if colour else 1
    if colour:
        d.PlanarConfiguration = 0
    d.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 8 * pixels.dtype.itemsize
    d.HighBit = d.BitsStored - 1
    d.PixelRepresentation = int(pixels.dtype.kind == "i")
    d.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(d, name)
        else:
            setattr(d, name, value)
    return d


def write(path, pixels, **tags):
    """A file of `dataset`; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(pixels, **tags).save_as(path, enforce_file_format=True)
    return path


def leaks(folder):
    """Files below a folder that hold one of the patient's identifiers, in their bytes, unpacked bytes or name."""
    import zipfile

    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        texts = [path.name.encode(), path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as z:
                texts += [z.read(n) for n in z.namelist()]
        if path.suffix == ".gz":
            import gzip

            texts.append(gzip.decompress(path.read_bytes()))
        found += [(path.name, s) for s in SECRETS for t in texts if s.encode() in t.lower()]
    return found
