"""Stories, tokens and batches.

This room turns text into what a model reads. `text` streams stories from files, `storyworld` makes them up, `hub`
downloads those of TinyStories; `sources` decides which are held out. `tokenizer` is the interface of what turns stories
into tokens and back, `bpe` implements it, and `tokenizer_files` reads those of other programs. `prepare` fills a
folder: `shards` writes the token files, `manifest` says where they are from and what they hold. `corpus` opens the
folder again, and `order` says which windows make the batch of a step. The room knows nothing of models.
"""
