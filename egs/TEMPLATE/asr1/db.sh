# Places of corpora on this machine, one variable each; empty: not set.
# `downloads` lets local/data.sh fetch the corpus, where it can.
CORPUS=
