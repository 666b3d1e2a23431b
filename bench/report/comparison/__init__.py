"""Comparison of a study's methods: intervals, ranks, paired tests."""
