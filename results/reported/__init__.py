"""Numbers from papers, as CSV; :mod:`bench.reported` reads them."""
