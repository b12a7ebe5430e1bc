"""The wires of providers on one server: kinds of models, what each refuses, and shapes of streams, as data.

`kinds` says which models there are and how they think, `rules` what their providers refuse, `script` what they write,
`stream` and a module for each wire how it is framed, and `server` serves it and counts every token.
"""
