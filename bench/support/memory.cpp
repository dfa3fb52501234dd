#include "support/memory.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace bench {

HugePages::HugePages(std::size_t bytes) : bytes_(bytes) {
  constexpr std::size_t kHuge = 2 * 1024 * 1024;
  mapped_ = (bytes + kHuge - 1) / kHuge * kHuge + kHuge;
  all_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all_ == MAP_FAILED) throw std::bad_alloc();
  const auto address = (reinterpret_cast<std::uintptr_t>(all_) + kHuge - 1) / kHuge * kHuge;
  data_ = reinterpret_cast<char*>(address);
  madvise(data_, mapped_ - kHuge, MADV_HUGEPAGE);
}

HugePages::~HugePages() {
  if (all_ != nullptr) munmap(all_, mapped_);
}

}  // namespace bench
