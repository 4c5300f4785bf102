"""What every room stands on: errors, names, random numbers, passes counted, files written whole."""

from segradius.core import errors as errors
