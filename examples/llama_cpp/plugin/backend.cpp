// The ggml backend: a device of type ACCEL whose operations are attention over llama.cpp's cache tensors and
// the writes to them. ggml's scheduler hands these operations to it, for every architecture, as long as the
// tensors are in host memory.
#include <cstring>

#include "api.hpp"
#include "blueprints.hpp"
#include "ggml-backend-impl.h"
#include "operators.hpp"

namespace zeromerge::plugin {
namespace {

// ---- backend

Host* host_of(ggml_backend_t backend) { return static_cast<Host*>(backend->context); }

void set_n_threads(ggml_backend_t backend, int threads) { host_of(backend)->set_threads(threads); }

const char* backend_name(ggml_backend_t) { return "zeromerge"; }

void backend_free(ggml_backend_t backend) {
  remove_host(host_of(backend));
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
  add_host(host);
  return new ggml_backend{guid(), backend_interface(), device, host};
}

ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); }

ggml_backend_buffer_t device_buffer_from_host(ggml_backend_dev_t, void* data, size_t size, size_t) {
  return ggml_backend_cpu_buffer_from_ptr(data, size);
}

bool device_supports_op(ggml_backend_dev_t, const ggml_tensor* op) {
  Blueprints::get().see(op);
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
  if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) return reinterpret_cast<void*>(set_n_threads);
  return api_function(name);
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
