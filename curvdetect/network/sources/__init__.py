"""Networks of others: what their libraries say of them, as settings of a `TorchModel`.

A file a library. Each gives the module, and a dict of settings: `input_shape`, `mean`,
`std`, `class_names`, `preparation`.
"""
