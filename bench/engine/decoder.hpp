// The other end of child.hpp: llama.cpp, with or without the plug-in, at a given depth.
#pragma once

namespace bench {

int decoder_main();

}  // namespace bench
