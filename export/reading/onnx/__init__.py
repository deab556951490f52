"""The front end for ONNX files: ordinary ones, and QONNX as Brevitas writes it."""
