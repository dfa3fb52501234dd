// The ggml backend: a device of type ACCEL whose operations are attention over llama.cpp's cache tensors and
// the writes to them. ggml's scheduler hands these operations to it, for every architecture, as long as the
// tensors are in host memory.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "ggml-backend-impl.h"
#include "host.hpp"
#include "ropes.hpp"
#include "settings.hpp"

namespace zeromerge::plugin {
namespace {

std::mutex hosts_mutex;
std::vector<Host*> hosts;

zeromerge_statistics read_statistics() {
  zeromerge_statistics s{};
  const std::lock_guard lock(hosts_mutex);
  for (const Host* host : hosts) host->count(s);
  Settings& settings = Settings::get();
  s.kv_bytes_peak += settings.held.peak();
  s.cached_calls = settings.cached_calls;
  s.stateless_calls = settings.stateless_calls;
  s.rebuilds = settings.rebuilds;
  s.refusals = settings.refusals;
  s.attention_seconds = static_cast<double>(settings.attention_nanoseconds) * 1e-9;
  return s;
}

// ---- what a program may ask for, see plugin_api.h

bool set_policy(const char* spec, char* error, size_t error_size) {
  try {
    Settings::get().set_policy(spec != nullptr ? spec : "");
    return true;
  } catch (const std::exception& e) {
    if (error != nullptr && error_size > 0) {
      std::strncpy(error, e.what(), error_size - 1);
      error[error_size - 1] = '\0';
    }
    return false;
  }
}

void set_reclaim(bool on) { Settings::get().set_reclaim(on); }

// action(host) for every instance. False: it failed, and the last error says why.
template <class Action>
bool for_hosts(const Action& action) {
  const std::lock_guard lock(hosts_mutex);
  try {
    for (Host* host : hosts) action(*host);
    return true;
  } catch (const std::exception& e) {
    Settings::get().set_error(e.what());
    return false;
  }
}

bool finish_prompt() {
  return for_hosts([](Host& host) { host.finish_prompt(); });
}
bool begin_second_reading() {
  return for_hosts([](Host& host) { host.begin_second_reading(); });
}
bool end_second_reading() {
  return for_hosts([](Host& host) { host.end_second_reading(); });
}
bool checkpoint() {
  return for_hosts([](Host& host) { host.checkpoint(); });
}
bool rollback() {
  return for_hosts([](Host& host) { host.require_checkpoint(); }) &&
         for_hosts([](Host& host) { host.rollback(); });
}

void get_statistics(zeromerge_statistics* statistics) { *statistics = read_statistics(); }

void get_heads(zeromerge_head_visitor_t visit, void* context) {
  const std::lock_guard lock(hosts_mutex);
  std::uint64_t streams = 0;
  for (const Host* host : hosts) streams += host->visit_heads(visit, context, streams);
}

void reset_statistics() {
  Settings& s = Settings::get();
  s.cached_calls = s.stateless_calls = s.rebuilds = s.refusals = s.attention_nanoseconds = 0;
  s.held.reset_peak();
}

const char* last_error() { return Settings::get().last_error(); }

// ---- backend

Host* host_of(ggml_backend_t backend) { return static_cast<Host*>(backend->context); }

void set_n_threads(ggml_backend_t backend, int threads) { host_of(backend)->set_threads(threads); }

const char* backend_name(ggml_backend_t) { return "zeromerge"; }

void backend_free(ggml_backend_t backend) {
  {
    const std::lock_guard lock(hosts_mutex);
    std::erase(hosts, host_of(backend));
  }
  delete host_of(backend);
  delete backend;
}

ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph* graph) {
  return host_of(backend)->compute(graph);
}

ggml_guid_t guid() {
  static ggml_guid id = {0x7a, 0x65, 0x72, 0x6f, 0x6d, 0x65, 0x72, 0x67,
                         0x65, 0x2d, 0x6b, 0x76, 0x2d, 0x30, 0x30, 0x31};
  return &id;
}

ggml_backend_i backend_interface() {
  ggml_backend_i i{};
  i.get_name = backend_name;
  i.free = backend_free;
  i.graph_compute = graph_compute;
  return i;
}

// ---- device

const char* device_name(ggml_backend_dev_t) { return "zeromerge"; }
const char* device_description(ggml_backend_dev_t) { return "attention over a compressed KV cache"; }
void device_memory(ggml_backend_dev_t, size_t* free, size_t* total) { *free = *total = 0; }
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }

void device_props(ggml_backend_dev_t device, ggml_backend_dev_props* props) {
  props->name = device_name(device);
  props->description = device_description(device);
  props->type = device_type(device);
  device_memory(device, &props->memory_free, &props->memory_total);
  props->caps = {false, false, true, false, true};
}

ggml_backend_t device_init(ggml_backend_dev_t device, const char*) {
  auto* host = new Host;
  {
    const std::lock_guard lock(hosts_mutex);
    hosts.push_back(host);
  }
  return new ggml_backend{guid(), backend_interface(), device, host};
}

ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); }

ggml_backend_buffer_t device_buffer_from_host(ggml_backend_dev_t, void* data, size_t size, size_t) {
  return ggml_backend_cpu_buffer_from_ptr(data, size);
}

bool device_supports_op(ggml_backend_dev_t, const ggml_tensor* op) {
  Ropes::get().see(op);
  return takes(op);
}

bool device_supports_buft(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
  return ggml_backend_buft_is_host(type);
}

ggml_backend_device_i device_interface() {
  ggml_backend_device_i i{};
  i.get_name = device_name;
  i.get_description = device_description;
  i.get_memory = device_memory;
  i.get_type = device_type;
  i.get_props = device_props;
  i.init_backend = device_init;
  i.get_buffer_type = device_buffer_type;
  i.buffer_from_host_ptr = device_buffer_from_host;
  i.supports_op = device_supports_op;
  i.supports_buft = device_supports_buft;
  return i;
}

// ---- registry

const char* reg_name(ggml_backend_reg_t) { return "zeromerge"; }
size_t reg_device_count(ggml_backend_reg_t) { return 1; }

ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t) {
  static ggml_backend_device device = {device_interface(), reg, nullptr};
  return &device;
}

void* reg_function(ggml_backend_reg_t, const char* name) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("ggml_backend_set_n_threads")) return reinterpret_cast<void*>(set_n_threads);
  if (is("zeromerge_set_policy")) return reinterpret_cast<void*>(set_policy);
  if (is("zeromerge_set_reclaim")) return reinterpret_cast<void*>(set_reclaim);
  if (is("zeromerge_finish_prompt")) return reinterpret_cast<void*>(finish_prompt);
  if (is("zeromerge_begin_second_reading")) return reinterpret_cast<void*>(begin_second_reading);
  if (is("zeromerge_end_second_reading")) return reinterpret_cast<void*>(end_second_reading);
  if (is("zeromerge_checkpoint")) return reinterpret_cast<void*>(checkpoint);
  if (is("zeromerge_rollback")) return reinterpret_cast<void*>(rollback);
  if (is("zeromerge_get_statistics")) return reinterpret_cast<void*>(get_statistics);
  if (is("zeromerge_get_heads")) return reinterpret_cast<void*>(get_heads);
  if (is("zeromerge_reset_statistics")) return reinterpret_cast<void*>(reset_statistics);
  if (is("zeromerge_last_error")) return reinterpret_cast<void*>(last_error);
  return nullptr;
}

ggml_backend_reg_t registry() {
  static ggml_backend_reg reg = {
      GGML_BACKEND_API_VERSION, {reg_name, reg_device_count, reg_device, reg_function}, nullptr};
  return &reg;
}

}  // namespace
}  // namespace zeromerge::plugin

static ggml_backend_reg_t zeromerge_reg() { return zeromerge::plugin::registry(); }
GGML_BACKEND_DL_IMPL(zeromerge_reg)
