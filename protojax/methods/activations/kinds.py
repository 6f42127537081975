"""Kinds of primitives, and of functions called, for those who write rules."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


STRUCTURAL = _names("""
    broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_slice
    dynamic_update_slice gather name optimization_barrier pad reduce_precision reshape
    rev scatter select_n sharding_constraint slice split squeeze stack tile transpose
    unstack
""")
"""Primitives that move values about."""

SUMS = _names("""
    add add_any cumsum reduce_sum reduce_window_sum scatter-add scatter-sub sub
""")
"""Primitives that add values up."""

PRODUCTS = _names("conv_general_dilated dot_general mul")
"""Primitives that are linear in each of two arguments."""

WEIGHTED = PRODUCTS - {"mul"}
"""Those that make a layer, where one argument is a constant."""

ELEMENTWISE = _names("""
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy copy_p cos cosh digamma div elementwise eq erf erf_inv
    erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic
    lt max min mul name ne neg nextafter not or pow reduce_precision relu relu6 rem
    round rsqrt select_n sign sin sinh sqrt square sub tan tanh xor
""")
"""Primitives, and functions called, that act on each entry alone."""
