"""How is data kept? In one SQLite file.

`engine` runs units of work, `tables` is the data model, `migrations` its history, `portable` the dialects.
"""
