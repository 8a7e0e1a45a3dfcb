# Places of corpora on this machine, one variable each; empty: not set.
# The word `downloads` means: local/data.sh fetches the corpus into downloads/, where it can.
export CORPUS=
