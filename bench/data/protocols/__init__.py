"""Protocols, one file each: the images that a trial learns from and those that it is tested on."""
