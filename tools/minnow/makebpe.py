"""Trains the tokenizer on a sample of the corpus: makebpe.py WORK -> WORK/bpe.json"""
import os
import sys

import bpe
import corpus
from common import Gen
from template import render

g = Gen("bpe")
os.makedirs(sys.argv[1], exist_ok=True)
merges = bpe.train((render(*corpus.document(g), add_generation_prompt=False) for _ in range(60000)), 2048)
bpe.Tokenizer(merges).save(os.path.join(sys.argv[1], "bpe.json"))
print(len(merges), "merges")
