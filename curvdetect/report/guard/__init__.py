"""One page about a fitted guard: ``curvdetect report``.

Everything that takes long is measured first (`facts`, `attacked`, `stages`). Then each
module in ``sections/`` says which numbers, pictures and words its part of the page
holds, and the template of the same name in ``templates/`` says how they look. `page`
puts the parts together. Templates escape what they are given: names of classes and
files are other people's.
"""
