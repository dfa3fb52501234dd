// Preloaded into a program that loads the plug-in by itself (llama-server, say): answers each connection to
// the socket that ZEROMERGE_TAP names with the plug-in's statistics, as one line of JSON. Tests and benches
// see by it what a program that knows nothing of the plug-in cannot tell them.
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "ggml-backend.h"
#include "plugin_api.h"

namespace {

// A function of the program's own ggml, which may be loaded after this library.
template <class Function>
Function* find(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

// A function of the plug-in, or null where it is not loaded.
template <class Function>
Function plugin_function(const char* name) {
  const auto by_name = find<decltype(ggml_backend_reg_by_name)>("ggml_backend_reg_by_name");
  const auto address = find<decltype(ggml_backend_reg_get_proc_address)>("ggml_backend_reg_get_proc_address");
  if (by_name == nullptr || address == nullptr) return nullptr;
  const ggml_backend_reg_t registry = by_name("zeromerge");
  return registry != nullptr ? reinterpret_cast<Function>(address(registry, name)) : nullptr;
}

std::string statistics() {
  const auto read = plugin_function<zeromerge_get_statistics_t>("zeromerge_get_statistics");
  if (read == nullptr) return "{\"loaded\": false}\n";
  zeromerge_statistics s{};
  read(&s);
  std::string text = "{\"loaded\": true";
  const auto add = [&text](const char* name, unsigned long long value) {
    text += std::string(", \"") + name + "\": " + std::to_string(value);
  };
  add("kv_bytes", s.kv_bytes);
  add("kv_bytes_peak", s.kv_bytes_peak);
  add("engine_bytes", s.engine_bytes);
  add("entries", s.entries);
  add("tokens", s.tokens);
  add("caches", s.caches);
  add("cached_calls", s.cached_calls);
  add("stateless_calls", s.stateless_calls);
  add("rebuilds", s.rebuilds);
  add("refusals", s.refusals);
  return text + "}\n";
}

void serve(int listener) {
  for (;;) {
    const int client = accept(listener, nullptr, nullptr);
    if (client < 0) return;
    const std::string text = statistics();
    if (send(client, text.data(), text.size(), MSG_NOSIGNAL) < 0) std::perror("zeromerge tap: send");
    close(client);
  }
}

// Before main(): the program need not know.
[[gnu::constructor]] void start() {
  const char* path = std::getenv("ZEROMERGE_TAP");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) return;
  std::strcpy(address.sun_path, path);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 8) != 0) {
    std::perror("zeromerge tap");
    return;
  }
  std::thread(serve, listener).detach();
}

}  // namespace
