"""The WAN renderer: a server that makes clips and stills with a Wan 2.1 pipeline."""
