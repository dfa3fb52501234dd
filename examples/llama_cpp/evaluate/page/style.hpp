// How the page looks: one style sheet, light and dark, wide and narrow.
#pragma once

namespace evaluate {

extern const char* const kStyle;

}  // namespace evaluate
