"""Front end for .tflite files, and Larq Compute Engine's interpreter to compare them in."""
