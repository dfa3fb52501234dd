// What a prompt score says of entries that its paper never lets go: above every other rating, and finite, so
// that arithmetic on ratings stays sound.
#pragma once

namespace zeromerge {

inline constexpr float kAlwaysKept = 1e30f;

}  // namespace zeromerge
