// x in units of log 2, c likewise: c * tanh(x / c).
ZEROMERGE_INLINE Vec capped(Vec x, Vec cap) {
  const Vec y = max(min(mul(div(x, cap), set1(2.0f * kLog2E)), set1(60.0f)), set1(-60.0f));
  return mul(cap, sub(set1(1.0f), div(set1(2.0f), add(set1(1.0f), exp2(y)))));
}
