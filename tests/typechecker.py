"""How annotations are checked while the tests run: an integer will do where a float is asked for, as Python means it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
