"""Named by aimet_torch.onnx_utils in a table of layers."""


class RoIPool:
    pass
