"""An answer as DICOM: a Secondary Capture of each image and a Structured Report of the study.

Both lie in the study of the images, in series of their own. All UIDs follow from the images and the
model: the same answer has the same ones, however often it is made.
"""

import io
import uuid
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import PersonName, format_number_as_ds

from fracnet.evaluation.conformal import short_reason
from fracnet.evaluation.predictions import PROB
from fracnet.inference import CAUTION
from fracnet.inference.image_predictor import ImagePredictor
from fracnet.inference.inputs import Original
from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.inference.overlays import EMPTY, color_bar, heat_on_original, text_font, wrapped
from fracnet.inference.predictor import Predictor
from fracnet.saliency.drawing import draw_overlay
from fracnet.saliency.gallery import READING
from fracnet.utils.files import write_atomically

MANUFACTURER = "fracnet"
SCHEME = "99FRACNET"
RESEARCH = "Research use only, not for diagnosis"
BANNER = "RESEARCH USE ONLY. NOT A MEDICAL DEVICE. NO DIAGNOSIS."
NO_HEATMAP = "This model has no heatmaps."
PANEL = 768
"""Pixels of the longer side of an image in a Secondary Capture."""
MIN_WIDTH, MARGIN, GAP = 960, 16, 8
SERIES = 9000
"""Series of answers are numbered from here, behind those of the study."""
IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "StudyID")
"""Copied even where their value breaks a rule of DICOM: they say where the answer belongs."""
TYPE_2 = (*IDENTITY, "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
          "ReferringPhysicianName")  # fmt: skip
FROM_IMAGE = ("BodyPartExamined", "BurnedInAnnotation", "LossyImageCompression",
              "LossyImageCompressionRatio", "LossyImageCompressionMethod")  # fmt: skip


def is_result(header: Dataset) -> bool:
    """Whether the object comes from a node like this one."""
    return str(header.get("Manufacturer")) == MANUFACTURER and "fracnet" in str(
        header.get("SeriesDescription")
    )


def derived_uid(*parts: str) -> str:
    """A UID that follows from the parts (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('fracnet', *parts))).int}"


def read_header(path: Path) -> Dataset:
    """The elements of an image that an answer may copy: public, valid, and without pixels."""
    return _valid(dcmread(path, stop_before_pixels=True))


def _valid(source: Dataset, depth: int = 0) -> Dataset:
    result = Dataset()
    for tag in list(source.keys()):
        if tag.is_private or tag.group == 2:
            continue
        try:
            element = source[tag]
            value: Any = element.value
            kept = not depth and element.keyword in IDENTITY
            if element.keyword == "PatientName" and not isinstance(value, PersonName):
                value = value[0]  # several names, of which DICOM allows one
            if element.VR == "SQ":
                value = [_valid(item, depth + 1) for item in value] if depth < 4 else []
            elif not kept and (
                element.VR not in dictionary_VR(tag)
                or (element.VM > 1 and dictionary_VM(tag) == "1")
            ):
                continue
            result.add(
                DataElement(tag, element.VR, value, validation_mode=IGNORE if kept else RAISE)
            )
        except Exception:  # whatever pydicom raises for a broken element: it is left out
            continue
    if depth:
        return result
    if str(result.get("PatientSex", "")) not in ("M", "F", "O"):
        result.PatientSex = ""
    for keyword in TYPE_2:
        if keyword not in result:
            setattr(result, keyword, "")
    return result


def _plain(text: str) -> str:
    """Text that any character set of DICOM holds, and no separator of values."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")


class AnswerObjects:
    """The objects of one answer, as they are made: first the captures, then the report.

    headers: of all images, in the order of `predict`'s rows. number: of the answer on this study.
    folder: for the files. id: of the answer. model, sha256: name and hash of the model.
    """

    def __init__(
        self, predictor: ImagePredictor, headers: Sequence[Dataset], number: int, folder: Path
    ) -> None:
        self.predictor, self.headers = predictor, headers
        self.number, self.folder = number, folder
        self.model, self.fracnet = _plain(predictor.path.name), version("fracnet")
        self.decisions_sha256 = str(predictor.decisions["sha256"])
        if isinstance(predictor, OnnxPredictor):
            self.sha256 = predictor.model.sha256
        else:
            assert isinstance(predictor, Predictor)
            self.sha256 = predictor.checkpoint_sha256
        self.uids = [str(header.SOPInstanceUID) for header in headers]
        first = headers[0]
        self.id = derived_uid(
            str(first.PatientID), str(first.StudyInstanceUID), *sorted(self.uids),
            self.sha256, self.decisions_sha256, self.fracnet,
            *(repr(level["limits"]) for level in predictor.levels.values()),
        )  # fmt: skip
        self.time = datetime.now()

    def _common(self, header: Dataset, kind: str, uid: str, place: int) -> dict[str, Any]:
        """What all objects of an answer say of themselves."""
        return {
            "series_instance_uid": derived_uid(self.id, kind),
            "series_number": SERIES + 2 * self.number - (kind == "capture"),
            "series_description": f"fracnet {kind}: research use only",
            "sop_instance_uid": derived_uid(self.id, kind, uid),
            "instance_number": place + 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.model[:64],
            "software_versions": self.fracnet[:64],
            "device_serial_number": self.sha256[:16],
            "content_date": self.time.date(),
            "content_time": self.time.time(),
            "transfer_syntax_uid": ExplicitVRLittleEndian,
            "specific_character_set": None,
        }

    def add_capture(
        self, place: int, row: pd.Series, original: Original, heat: np.ndarray | None
    ) -> None:
        """The picture of the image at this place of `headers`; `heat` is None without a heatmap."""
        header = self.headers[place]
        picture = result_picture(original, heat, self._capture_lines(row, heat))
        result = hd.SOPClass(
            study_instance_uid=header.StudyInstanceUID,
            sop_class_uid=SecondaryCaptureImageStorage,
            modality="OT",
            **self._common(header, "capture", self.uids[place], place),
        )
        result.copy_patient_and_study_information(header)
        for keyword in FROM_IMAGE:
            if keyword in header:
                result.add(header[keyword])
        result.Laterality = header.get("Laterality") or header.get("ImageLaterality") or ""
        result.PatientOrientation = header.get("PatientOrientation") or ""
        result.ConversionType = "WSD"
        result.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        result.DerivationDescription = f"Heatmap and decision of a trained model. {RESEARCH}."
        result.ImageComments = CAUTION
        source = Dataset()
        source.ReferencedSOPClassUID = header.SOPClassUID
        source.ReferencedSOPInstanceUID = header.SOPInstanceUID
        result.SourceImageSequence = DicomSequence([source])
        result.SamplesPerPixel, result.PhotometricInterpretation = 3, "RGB"
        result.PlanarConfiguration = result.PixelRepresentation = 0
        result.Rows, result.Columns = picture.shape[:2]
        result.BitsAllocated = result.BitsStored = 8
        result.HighBit = 7
        result.add_new("PixelData", "OB", picture.tobytes() + bytes(picture.size % 2))
        self._write(f"capture_{place + 1:04d}", result)

    def _capture_lines(self, row: pd.Series, heat: np.ndarray | None) -> list[str]:
        """The decision, large, and what belongs to it."""
        decision = row["decision"]
        flag = f"Uncertain: {short_reason(row['reason'])}" if row["uncertain"] else "Confident"
        prob = row[f"{PROB}{decision}"]
        lines = [f"Predicted: {decision}, calibrated probability {prob:.3f}", f"{flag}."]
        if pd.notna(row["ood_score"]):
            score, relation = row["ood_score"], "above" if row["ood"] else "not above"
            lines.append(f"Out-of-distribution score {score:.2f}, {relation} the limit of 1.")
        lines.append(NO_HEATMAP if heat is None else READING if heat.any() else EMPTY)
        lines.append(f"Model {self.model}, fracnet {self.fracnet}, SHA-256 {self.sha256[:16]}.")
        return [*lines, CAUTION]

    def add_report(self, table: pd.DataFrame, studies: pd.DataFrame) -> None:
        """The Structured Report on all rows of `predict` and the row of `studies`, if any."""
        groups = [
            self._group(row, "image", [header])
            for (_, row), header in zip(table.iterrows(), self.headers, strict=True)
        ]
        if len(self.headers) > 1 or "study" in self.predictor.levels:
            groups += [self._group(row, "study", self.headers) for _, row in studies.iterrows()]
        device = sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid(self.sha256),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=self.model,
            serial_number=self.sha256,
        )
        report = sr.MeasurementReport(
            observation_context=sr.ObservationContext(sr.ObserverContext(codes.DCM.Device, device)),
            procedure_reported=codes.cid100.XRUnspecifiedBodyRegion,
            imaging_measurements=groups,
        )
        caution = sr.TextContentItem(codes.DCM.Comment, CAUTION, sr.RelationshipTypeValues.CONTAINS)
        report[0].ContentSequence.append(caution)
        result = sr.ComprehensiveSR(
            evidence=list(self.headers),
            content=report,
            is_complete=True,
            coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="local codes of fracnet")],
            **self._common(self.headers[0], "report", "", 0),
        )
        self._write("report", result)

    def _write(self, name: str, dataset: Dataset) -> None:
        if "SpecificCharacterSet" in self.headers[0]:  # whatever it is: the names are its bytes
            dataset.add(self.headers[0]["SpecificCharacterSet"])
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        write_atomically(self.folder / f"{name}.dcm", file.getvalue())

    def _group(self, row: pd.Series, level: str, headers: Sequence[Dataset]) -> Any:
        """The measurement group of an image or the study (TID 1501)."""
        limits = self.predictor.levels.get(level)
        parameters = [
            f"SHA-256 of the model: {self.sha256}",
            f"SHA-256 of the operating points: {self.decisions_sha256}",
            f"temperature: {self.predictor.decisions['temperature']}",
        ]
        measurements, evaluations = [], [_evaluation("use", "Intended use", "research", RESEARCH)]
        if pd.notna(row["decision"]) and row["decision"]:
            choice = self.predictor.classes.index(row["decision"])
            evaluations.append(
                _evaluation("decision", "Decision", f"class_{choice}", row["decision"])
            )
            flag = "uncertain" if row["uncertain"] else "confident"
            reason = f"{flag}: {row['reason']}" if row["reason"] else flag
            evaluations.append(_evaluation("certainty", "Certainty", flag, reason))
        if error := row.get("error"):
            evaluations.append(_evaluation("error", "Error", "unreadable", error))
        numbers = {
            f"prob_{number}": (f"Probability of {name}", row[f"{PROB}{name}"])
            for number, name in enumerate(self.predictor.classes)
        }
        if limits and limits["threshold"] is not None:
            positive = self.predictor.classes[1]
            text = f"Operating point: least probability of {positive}"
            numbers["threshold"] = (text, limits["threshold"])
        if "ood_score" in row:
            numbers["ood_score"] = ("Out-of-distribution score, limit 1", row["ood_score"])
        for value, (meaning, number) in numbers.items():
            if pd.notna(number):
                name = _code(value, meaning)
                measurements.append(sr.Measurement(name, _decimal(number), codes.UCUM.NoUnits))
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=derived_uid(self.id, level, *(h.SOPInstanceUID for h in headers)),
                identifier=f"Prediction of the {level}",
            ),
            algorithm_id=sr.AlgorithmIdentification(
                self.model, f"fracnet {self.fracnet}", parameters
            ),
            measurements=measurements,
            qualitative_evaluations=evaluations,
            source_images=[
                sr.SourceImageForMeasurementGroup(h.SOPClassUID, h.SOPInstanceUID) for h in headers
            ],
        )


def _code(value: str, meaning: str) -> sr.CodedConcept:
    return sr.CodedConcept(value[:16], SCHEME, _plain(meaning)[:64])


def _evaluation(name: str, title: str, value: str, meaning: str) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(_code(name, title), _code(value, meaning))


def _decimal(number: float) -> float:
    """The number as near as the 16 characters of a decimal string come."""
    return float(format_number_as_ds(float(number)))


def result_picture(original: Original, heat: np.ndarray | None, lines: Sequence[str]) -> np.ndarray:
    """uint8 RGB [H, W, 3]: a banner, the image and its heatmap side by side (a wide image: one
    above the other), the heatmap's scale, and the lines, the first of them large."""
    height, width = original.pixels.shape
    scale = PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    panels = [original.pixels]
    if heat is not None:
        panels.append(draw_overlay(original.pixels, heat_on_original(heat, original)))
    images = [Image.fromarray(panel).convert("RGB").resize(size) for panel in panels]
    stacked = width > 1.3 * height
    steps = (0, size[1] + GAP) if stacked else (size[0] + GAP, 0)
    block = tuple(side + step * (len(images) - 1) for side, step in zip(size, steps, strict=True))
    total = max(MIN_WIDTH, block[0] + 2 * MARGIN)
    large, small = text_font(28), text_font(18)
    text = [(part, large) for part in wrapped(lines[0], large, total - 2 * MARGIN)]
    text += [
        (part, small) for line in lines[1:] for part in wrapped(line, small, total - 2 * MARGIN)
    ]
    banner, bar = 52, 56 if heat is not None else 0
    top = banner + GAP + block[1] + MARGIN
    bottom = top + bar + sum(_line_height(font) for _, font in text) + MARGIN
    canvas = Image.new("RGB", (total, bottom), "black")
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 0, total, banner - 1), fill=(178, 60, 0))
    pen.text((total / 2, banner / 2), BANNER, "white", large, anchor="mm")
    left = (total - block[0]) // 2
    for i, image in enumerate(images):
        canvas.paste(image, (left + i * steps[0], banner + GAP + i * steps[1]))
    if bar:
        strip = color_bar(total - 2 * MARGIN, 16)
        canvas.paste(Image.fromarray(strip), (MARGIN, top))
        for words, x, anchor in (("0", MARGIN, "la"), ("1", total - MARGIN, "ra")):
            pen.text((x, top + 20), words, "white", small, anchor=anchor)
        pen.text(
            (total / 2, top + 20), "heatmap, share of its maximum", "white", small, anchor="ma"
        )
    y = top + bar
    for words, font in text:
        pen.text((MARGIN, y), words, "white", font)
        y += _line_height(font)
    return np.asarray(canvas)


def _line_height(font: Any) -> int:
    return round(1.35 * font.size)
