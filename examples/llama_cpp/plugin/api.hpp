// What a program may ask of the plug-in, see plugin_api.h.
#pragma once

#include "host.hpp"

namespace zeromerge::plugin {

// The instances that are alive.
void add_host(Host* host);
void remove_host(Host* host);

// A function of plugin_api.h by its name; null: there is none of that name.
void* api_function(const char* name);

}  // namespace zeromerge::plugin
