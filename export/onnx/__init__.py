"""ONNX: the packed, int8, float and QONNX forms, reader, twins, and ONNX Runtime."""
