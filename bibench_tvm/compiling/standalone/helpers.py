"""What 32-bit processors have no instruction for, in LLVM's text: 64-bit integers divided and as floats, and
floats rounded.

LLVM calls functions for these by names that compilers' own libraries have. Where floats are passed in
registers of their own, those libraries and LLVM do not agree on the registers; so a library of ours brings
the functions itself, seen by nobody else, and only those that it calls. Each uses what 32-bit Arm has:
shifts and sums of 64 bits, and conversions of 32.
"""

from __future__ import annotations

from collections.abc import Collection

# A digit at a time. quotient 0 and rest 0 for a divisor of 0, which C leaves open.
_DIVIDE = """
define internal {{ i64, i64 }} @bibench_divide(i64 %a, i64 %b) noinline {attributes} {{
begin:
  %nothing = icmp eq i64 %b, 0
  br i1 %nothing, label %refuse, label %step
refuse:
  ret {{ i64, i64 }} zeroinitializer
step:
  %i = phi i32 [ 0, %begin ], [ %more, %step ]
  %left = phi i64 [ %a, %begin ], [ %left.next, %step ]
  %rest = phi i64 [ 0, %begin ], [ %rest.next, %step ]
  %carried = icmp slt i64 %rest, 0
  %digit = lshr i64 %left, 63
  %rest.twice = shl i64 %rest, 1
  %rest.more = or i64 %rest.twice, %digit
  %enough = icmp uge i64 %rest.more, %b
  %one = or i1 %carried, %enough
  %rest.less = sub i64 %rest.more, %b
  %rest.next = select i1 %one, i64 %rest.less, i64 %rest.more
  %left.twice = shl i64 %left, 1
  %quotient.digit = zext i1 %one to i64
  %left.next = or i64 %left.twice, %quotient.digit
  %more = add i32 %i, 1
  %done = icmp eq i32 %more, 64
  br i1 %done, label %end, label %step
end:
  %first = insertvalue {{ i64, i64 }} poison, i64 %left.next, 0
  %both = insertvalue {{ i64, i64 }} %first, i64 %rest.next, 1
  ret {{ i64, i64 }} %both
}}
"""
_UNSIGNED = """
define internal i64 @{name}(i64 %a, i64 %b) {attributes} {{
  %both = call {{ i64, i64 }} @bibench_divide(i64 %a, i64 %b)
  %found = extractvalue {{ i64, i64 }} %both, {which}
  ret i64 %found
}}
"""
# The quotient is negative where the signs differ, and the rest where the dividend is.
_SIGNED = """
define internal i64 @{name}(i64 %a, i64 %b) {attributes} {{
  %a.sign = ashr i64 %a, 63
  %b.sign = ashr i64 %b, 63
  %a.turned = xor i64 %a, %a.sign
  %a.large = sub i64 %a.turned, %a.sign
  %b.turned = xor i64 %b, %b.sign
  %b.large = sub i64 %b.turned, %b.sign
  %both = call {{ i64, i64 }} @bibench_divide(i64 %a.large, i64 %b.large)
  %found = extractvalue {{ i64, i64 }} %both, {which}
  %differ = xor i64 %a.sign, %b.sign
  %sign = add i64 {sign}, 0
  %turned = xor i64 %found, %sign
  %signed = sub i64 %turned, %sign
  ret i64 %signed
}}
"""
# 32 digits are rounded as all would be: where the others are not all 0, the last of the 32 is 1.
_TO_FLOAT = """
define internal float @bibench_to_float(i64 %a) noinline {attributes} {{
  %top = lshr i64 %a, 32
  %high = trunc i64 %top to i32
  %zeros = call i32 @llvm.ctlz.i32(i32 %high, i1 false)
  %shift = sub i32 32, %zeros
  %wide = zext i32 %shift to i64
  %shifted = lshr i64 %a, %wide
  %digits = trunc i64 %shifted to i32
  %back = shl i64 %shifted, %wide
  %dropped = icmp ne i64 %back, %a
  %sticky = zext i1 %dropped to i32
  %rounded = or i32 %digits, %sticky
  %float = uitofp i32 %rounded to float
  %exponent = add i32 %shift, 127
  %power.bits = shl i32 %exponent, 23
  %power = bitcast i32 %power.bits to float
  %found = fmul float %float, %power
  ret float %found
}}
declare i32 @llvm.ctlz.i32(i32, i1 immarg)
"""
_FLOAT_OF_UNSIGNED = """
define internal float @{name}(i64 %a) {attributes} {{
  %found = call float @bibench_to_float(i64 %a)
  ret float %found
}}
"""
_FLOAT_OF_SIGNED = """
define internal float @{name}(i64 %a) {attributes} {{
  %sign = ashr i64 %a, 63
  %turned = xor i64 %a, %sign
  %large = sub i64 %turned, %sign
  %float = call float @bibench_to_float(i64 %large)
  %less = fneg float %float
  %negative = icmp slt i64 %a, 0
  %found = select i1 %negative, float %less, float %float
  ret float %found
}}
"""
# Floats under 1 are 0; those that do not fit, which C leaves open, lose their upper digits.
_TO_INTEGER = """
define internal i64 @{name}(float %a) {attributes} {{
  %bits = bitcast float %a to i32
  %moved = lshr i32 %bits, 23
  %exponent = and i32 %moved, 255
  %fraction = and i32 %bits, 8388607
  %digits = or i32 %fraction, 8388608
  %wide = zext i32 %digits to i64
  %less = sub i32 150, %exponent
  %less.most = call i32 @llvm.umin.i32(i32 %less, i32 63)
  %less.wide = zext i32 %less.most to i64
  %right = lshr i64 %wide, %less.wide
  %more = sub i32 %exponent, 150
  %more.most = call i32 @llvm.umin.i32(i32 %more, i32 63)
  %more.wide = zext i32 %more.most to i64
  %left = shl i64 %wide, %more.wide
  %large = icmp sgt i32 %more, 0
  %size = select i1 %large, i64 %left, i64 %right
  %below = sub i64 0, %size
  %negative = icmp slt i32 %bits, 0
  %found = select i1 %negative, i64 %below, i64 %size
  ret i64 %found
}}
"""
# To the nearest whole number, of two the even one, as the processor rounds the sum with 2^23, which has no
# digit for less than 1. Beyond it all floats are whole; -0.3 becomes -0.
_ROUND = """
define internal float @{name}(float %a) {attributes} {{
  %bits = bitcast float %a to i32
  %sign = and i32 %bits, -2147483648
  %size.bits = and i32 %bits, 2147483647
  %size = bitcast i32 %size.bits to float
  %up = fadd float %size, 8388608.0
  %whole = fsub float %up, 8388608.0
  %whole.bits = bitcast float %whole to i32
  %signed.bits = or i32 %whole.bits, %sign
  %signed = bitcast i32 %signed.bits to float
  %small = fcmp olt float %size, 8388608.0
  %found = select i1 %small, float %signed, float %a
  ret float %found
}}
"""
_SMALLER = "declare i32 @llvm.umin.i32(i32, i32)\n"
_HELPERS: dict[str, tuple[str, dict[str, object], str]] = {
    "__udivdi3": (_UNSIGNED, {"which": 0}, _DIVIDE),
    "__umoddi3": (_UNSIGNED, {"which": 1}, _DIVIDE),
    "__divdi3": (_SIGNED, {"which": 0, "sign": "%differ"}, _DIVIDE),
    "__moddi3": (_SIGNED, {"which": 1, "sign": "%a.sign"}, _DIVIDE),
    "__floatundisf": (_FLOAT_OF_UNSIGNED, {}, _TO_FLOAT),
    "__floatdisf": (_FLOAT_OF_SIGNED, {}, _TO_FLOAT),
    "__fixsfdi": (_TO_INTEGER, {}, _SMALLER),
    "__fixunssfdi": (_TO_INTEGER, {}, _SMALLER),
    **dict.fromkeys(("nearbyintf", "rintf", "roundevenf"), (_ROUND, {}, "")),
}


def helpers_for(symbols: Collection[str], text: str, attributes: str) -> str:
    """LLVM's text of those of the functions that there are here, to be added to `text`; empty for none."""
    wanted = {symbol: _HELPERS[symbol] for symbol in symbols if symbol in _HELPERS}
    shared = dict.fromkeys(below.format(attributes=attributes) for _, _, below in wanted.values())
    own = [form.format(name=name, attributes=attributes, **how) for name, (form, how, _) in wanted.items()]
    lines = "".join([*shared, *own]).splitlines(keepends=True)
    # What is declared already may not be once more.
    kept = [line for line in lines if not line.startswith("declare") or _symbol(line) not in text]
    return "".join(kept)


def _symbol(line: str) -> str:
    return line[line.index("@") : line.index("(")] + "("
