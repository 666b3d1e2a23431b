"""Records and scores on disk: one JSON record and one file of scores per trial."""
