"""The ATen operators that a .pt2 may call: those of convolutional networks at inference.

A closed list, because the graph names its functions and torch looks up whatever it is told, be it
`torch.hub.load` or `aten.from_file`.
"""

import re
from typing import Final

_ATEN_NAMES = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_scalar _assert_tensor_metadata _log_softmax
_native_batch_norm_legit _native_batch_norm_legit_no_training _prelu_kernel _softmax _to_copy
_unsafe_view _upsample_nearest_exact2d abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool2d add add_ addcmul addmm alias all amax amin any arange argmax avg_pool1d avg_pool2d
avg_pool3d batch_norm bitwise_and bitwise_not bmm broadcast_to cat ceil celu channel_shuffle chunk
clamp clamp_max clamp_min clone concat concatenate constant_pad_nd contiguous conv1d conv2d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cumsum detach detach_ diff div
div_ dropout dropout_ einsum elu elu_ embedding eq erf exp expand expand_as eye feature_dropout flatten
flip floor floor_divide full full_like gather ge gelu glu group_norm gt hardsigmoid hardsigmoid_
hardswish hardswish_ hardtanh hardtanh_ index index_select instance_norm isinf isnan layer_norm le
leaky_relu leaky_relu_ lift_fresh lift_fresh_copy linalg_vector_norm linear log log1p log_softmax
logical_and logical_not logical_or lt masked_fill matmul max max_pool1d max_pool1d_with_indices
max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean min minimum mish
mish_ mm mul mul_ narrow native_batch_norm native_group_norm native_layer_norm ne neg new_full new_ones
new_zeros norm ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu reciprocal
reflection_pad2d relu relu6 relu6_ relu_ remainder repeat repeat_interleave replication_pad2d reshape
roll rsqrt rsub scalar_tensor scaled_dot_product_attention select selu selu_ sigmoid sigmoid_ sign silu
silu_ sin slice softmax softplus softsign split split_with_sizes sqrt squeeze stack std std_mean sub
sub_ sum sym_constrain_range_for_size sym_numel sym_size sym_stride t tanh tanh_ tile to topk transpose
tril triu type_as unbind unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d
upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var
var_mean view view_as where zeros zeros_like
"""
_ATEN: Final = frozenset(_ATEN_NAMES.split())
_OPERATOR_NAMES = "add sub mul floordiv truediv mod neg pow getitem eq ne ge gt le lt"
_OPERATOR: Final = frozenset(_OPERATOR_NAMES.split())
_SYM: Final = frozenset({"sym_max", "sym_min", "sym_int", "sym_float", "sym_not", "sym_sum"})


def is_allowed(target: str) -> bool:
    """Whether a node may call this function, as a .pt2 writes it."""
    if match := re.fullmatch(r"torch\.ops\.aten\.(\w+)\.\w+", target, flags=re.ASCII):
        return match[1] in _ATEN
    if match := re.fullmatch(r"_operator\.(\w+)", target, flags=re.ASCII):
        return match[1] in _OPERATOR
    match = re.fullmatch(r"torch\.(\w+)", target, flags=re.ASCII)
    return bool(match and match[1] in _SYM)
