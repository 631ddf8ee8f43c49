"""Stories, tokens and batches.

This room turns text into what a model reads: `text` streams stories from files, `storyworld` makes
them up, `hub` downloads the TinyStories ones, `tokenizer` turns stories into tokens and back, and
`prepare` writes a folder of token files with a manifest that says where they came from. It knows
nothing of models.
"""
