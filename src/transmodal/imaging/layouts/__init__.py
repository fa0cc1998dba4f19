"""How datasets are organised on disk: which file is whose MR, CT or mask.

A layout is one module with two functions and one line in the table of `find`: ``recognize(source)`` says by what it knows the layout
(or returns None), and ``read(source, options)`` lists the subjects with all files that qualify. What is common (names that are
safe, a choice among several files, a table of attributes) is done once, in `subjects` and `find`. No voxel is read.
"""

from transmodal.imaging.layouts.find import Found, Layout, find_subjects
from transmodal.imaging.layouts.subjects import ScanSource, SubjectFiles

__all__ = ["Found", "Layout", "ScanSource", "SubjectFiles", "find_subjects"]
