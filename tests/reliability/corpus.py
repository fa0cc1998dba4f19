"""Bad input, one row a case: how to make it, and what must come of it.

Each row writes one subject into a folder: ``mr.nii.gz`` (and ``ct``, ``mask``, ``sct`` where it takes several), a DICOM series, or a
recipe or a run. `test_corpus.py` gives it to the real command line.
"""

from reliability.dicom import DICOM
from reliability.other import OTHER
from reliability.scans import FILES, NIFTI

KINDS = {"files": FILES, "NIfTI": NIFTI, "DICOM": DICOM, "checkpoints, recipes, names": OTHER}
CORPUS = {f"{kind}: {name}": row for kind, rows in KINDS.items() for name, row in rows.items()}
