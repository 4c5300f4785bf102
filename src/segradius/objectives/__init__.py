"""What an attack maximises: a loss of each pixel times a weight, towards a goal."""
