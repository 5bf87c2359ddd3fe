"""Trained models as folders: those that ship with the package, and your own.

`_folder` is the format (``docs/model-folder.md`` documents it), `_entries` the parts of
config.json, `shipped` what comes with the package; `prior`, `classifier`, `amortized`, `twist` and
`clip` write and read the kinds of models, whose networks `_network_functions` turns into functions
of one event.
"""
