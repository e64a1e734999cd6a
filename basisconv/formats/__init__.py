"""Files of networks ⇄ modules of standard layers: ONNX and torch.export's .pt2."""
