// What cache.hpp declares.

namespace zeromerge::cuda {

namespace detail {

template <class P>
Launches launches_for(const DevicePolicy& policy) {
  using K = typename P::Key;
  using V = typename P::Value;
  if constexpr (std::same_as<K, any_storage> || std::same_as<V, any_storage>)
    return launches_of(policy.key_type, policy.value_type);
  else
    return launches_of<K, V>();
}

// Throws Error unless a head says the same of itself throughout.
inline void check_head(const HeadCopy& head, const CacheParts& parts) {
  const HeadState& s = head.state;
  const std::size_t n = head.entries();
  const std::size_t head_dim = parts.geometry.head_dim;
  if (s.size != n || head.keys.size() != n * head_dim || head.values.size() != n * head_dim ||
      head.score.size() != n || head.mass.size() != n)
    fail("put: a head's state says ", s.size, " entries of ", head_dim, " channels; it has ", n,
         " positions, ", head.keys.size(), " and ", head.values.size(), " numbers in keys and values, ",
         head.score.size(), " scores and ", head.mass.size(), " masses");
  if (n == 0) fail("put: a head holds nothing; end a prompt first");
  if (s.capacity == kKeepsAll && parts.longest == 0)
    fail("put: a head keeps everything, and how long it can become is not known; give CacheOptions::longest");
  if (n > s.capacity) fail("put: a head of capacity ", s.capacity, " holds ", n, " entries");
  const std::uint64_t areas = std::uint64_t{s.sinks} + s.residual + s.recent + parts.policy.rule.block - 1;
  if (s.capacity != kKeepsAll && areas >= s.capacity)
    fail("put: a head of capacity ", s.capacity, " has ", s.sinks, " sinks, ", s.residual, " merged and ",
         s.recent, " recent entries, and blocks of ", parts.policy.rule.block,
         ": nothing is left to compete");
}

template <class B>
bool keeps_everything(const B& budget) {
  bool unlimited = false;
  with_choice(budget,
              [&](const auto& b) { unlimited = std::same_as<std::remove_cvref_t<decltype(b)>, Unlimited>; });
  return unlimited;
}

}  // namespace detail

template <class P>
KvCache<P>::KvCache(const Geometry& geometry, P policy, CacheOptions options)
    : policy_(std::move(policy)),
      sequences_(options.sequences),
      first_layer_(options.first_layer),
      chunk_(options.chunk),
      host_prompts_(options.host_prompts) {
  geometry.validate();
  if (!geometry.shapes.empty()) fail("cuda: layers of different shapes are not supported on a device");
  if (sequences_ == 0 || chunk_ == 0) fail("cuda: sequences and chunk must be at least 1");
  check_head_dim(geometry.head_dim);
  if (options.longest == 0 && detail::keeps_everything(policy_.budget))
    fail(
        "cuda: a cache that keeps everything needs CacheOptions::longest, the tokens of the longest "
        "sequence");
  zeromerge::detail::check_bytes(policy_, geometry.head_dim);
  const DevicePolicy device = device_policy(policy_, host_prompts_);
  const SlabForm form{row_form(device.key_type, geometry.head_dim),
                      row_form(device.value_type, geometry.head_dim), device.fields};
  parts_.reset(new CacheParts{geometry, device, detail::launches_for<P>(device), options.longest, form});
  prompt_ = std::make_unique<PromptScratch>();
  scratch_ = std::make_unique<DecodeScratch>(*parts_, sequences_);
  const std::size_t all = geometry.layers * sequences_ * geometry.kv_heads;
  rows_ = Buffer<HeadRows>(all);
  states_ = Buffer<HeadState>(all);
  for (std::size_t i = 0; i < geometry.layers * sequences_; ++i)
    heads_.emplace_back(parts_.get(), prompt_.get(), rows_.data() + i * geometry.kv_heads,
                        states_.data() + i * geometry.kv_heads);
  scratch_->reserve(bound());
}

// Of every head of one layer. Budgets that differ by layer are told which one asks.
template <class P>
std::vector<std::size_t> KvCache<P>::ask_budget(BudgetQuery query) const {
  const BudgetProgress progress{.kv_heads = std::vector<std::size_t>(geometry().layers, geometry().kv_heads),
                                .asked = {query.layer - first_layer_}};
  if (needs_all_layers(policy_.budget)) query.progress = &progress;
  return policy_.budget.capacities(query);
}

// Entries of a head at any time, as far as it is known.
template <class P>
std::size_t KvCache<P>::bound() const {
  if (parts_->longest == 0) return 0;
  if (detail::keeps_everything(policy_.budget) || compares_entries(policy_.budget))
    return parts_->longest + 1;
  std::size_t most = 0;
  for (std::size_t l = 0; l < geometry().layers; ++l) {
    const auto query = budget_query(l, parts_->longest);
    for (const std::size_t capacity : ask_budget(query)) most = std::max(most, capacity + 1);
  }
  return std::min(most, parts_->longest + 1);
}

template <class P>
void KvCache<P>::take(std::size_t layer, std::size_t sequence, const RowView& q, const RowView& k,
                      const RowView& v, const OutRows& out, const float* lse, Stream stream) {
  Heads& all = heads(layer, sequence);
  detail::check_contiguous("q", q, q.tokens, geometry().query_heads, geometry().head_dim);
  detail::check_contiguous("k", k, q.tokens, geometry().kv_heads, geometry().head_dim);
  detail::check_contiguous("v", v, q.tokens, geometry().kv_heads, geometry().head_dim);
  detail::check_types(q, k, v);
  if (q.tokens == 0) return;
  if (q.tokens * geometry().group() > 0x7fffffffu)
    fail("cuda: ", q.tokens, " tokens are too many for one call; use several");
  if (host_prompts_)
    fail(
        "cuda: the prompts of this cache are compressed on the host; upload() them, and decode what follows");
  const std::size_t chunk = policy_.bounded ? chunk_ : q.tokens;
  if (policy_.bounded) {                            // before anything changes
    if (!all.in_prompt()) all.read_states(stream);  // only the device knows how many tokens were decoded
    const std::size_t known = all.prompt_tokens();
    const auto query = budget_query(layer, known + std::min(chunk, q.tokens));
    (void)zeromerge::detail::divide_all(policy_, query, ask_budget(query));
  }
  for (std::size_t t = 0; t < q.tokens; t += chunk) {
    const std::size_t n = std::min(chunk, q.tokens - t);
    const std::size_t row = geometry().query_heads;
    void* part = out.data == nullptr
                     ? nullptr
                     : static_cast<char*>(out.data) + t * row * geometry().head_dim * element_size(out.type);
    all.take({q.slice(t, n).data, k.slice(t, n).data, v.slice(t, n).data, q.type, device_count(n)}, part,
             out.type, lse == nullptr ? nullptr : lse + t * row, sinks(layer), stream);
    if (policy_.bounded) fit_to_budget(layer, all, stream);
  }
}

template <class P>
DecodeStep KvCache<P>::step_of(std::size_t layer, const Batch& batch, const RowView& q, const OutRows& out,
                               float* lse) {
  const std::size_t first = layer * sequences_ * geometry().kv_heads;
  DecodeStep step{};
  step.heads = {rows_.data() + first, states_.data() + first, batch.device(),
                parts_->kv_heads(),   parts_->group(),        parts_->head_dim()};
  step.rule = parts_->policy.rule;
  step.q = q.data;
  step.type = q.type;
  step.out = out.data;
  step.out_type = out.type;
  step.lse = lse;
  step.sinks = sinks(layer);
  step.scale = geometry().attention_scale();
  step.softcap = geometry().logit_softcap;
  step.batch = static_cast<unsigned>(batch.size());
  scratch_->lend(step);
  return step;
}

template <class P>
Batch KvCache<P>::batch(const std::vector<std::size_t>& sequences, Stream stream) const {
  std::vector<std::uint32_t> numbers;
  std::vector<char> there(sequences_, 0);
  for (const std::size_t s : sequences) {
    if (s >= sequences_ || there[s] != 0)
      fail("cuda: a batch names each of ", sequences_, " sequences once, got ", s,
           s < sequences_ ? " twice" : ", which is none of them");
    there[s] = 1;
    numbers.push_back(static_cast<std::uint32_t>(s));
  }
  if (numbers.empty()) fail("cuda: a batch has at least one sequence");
  Batch made(std::move(numbers));
  copy_in(made.device_.data(), made.host_.data(), made.device_.bytes(), stream);
  return made;
}

// What every entry is worth by the running score, [kv_heads][entries].
template <class P>
std::vector<std::vector<float>> KvCache<P>::importance(Heads& all, Stream stream) {
  std::vector<std::vector<float>> values;
  for (std::size_t h = 0; h < geometry().kv_heads; ++h) {
    const HeadState& state = all.states()[h];
    const HeadRows& head = all.rows()[h];
    values.push_back(detail::copy_floats(head.score, state.size, 0.0f, stream));
    std::vector<std::uint32_t> position(state.size);
    copy_out(position.data(), head.position, position.size() * sizeof(std::uint32_t), stream);
    synchronise(stream);
    for (std::size_t j = 0; j < position.size(); ++j)
      values[h][j] = policy_.score.importance(values[h][j], state.tokens - position[j]);
  }
  return values;
}

// Of every head. rated: the ratings of all entries lie on the device, for somebody has to leave.
template <class P>
std::vector<std::size_t> KvCache<P>::capacities(std::size_t layer, Heads& all, bool& rated, Stream stream) {
  auto query = budget_query(layer, all.prompt_tokens());
  std::vector<std::size_t> capacities = ask_budget(query);
  bool fits = true;
  for (std::size_t h = 0; h < capacities.size(); ++h) fits = fits && all.states()[h].size <= capacities[h];
  rated = !fits && all.can_rate();
  if (rated) all.rate(stream);
  if (!compares_entries(policy_.budget) || all.prompt_tokens() == 0) return capacities;
  const bool by_rating = rated && policy_.prompt_share >= 1.0;
  const Ratings values = by_rating ? all.ratings(stream) : importance(all, stream);
  query.importance = values;
  return ask_budget(query);
}

template <class P>
std::vector<Division> KvCache<P>::division(std::size_t layer, Heads& all,
                                           std::span<const std::size_t> each) const {
  return zeromerge::detail::divide_all(policy_, budget_query(layer, all.prompt_tokens()), each);
}

template <class P>
void KvCache<P>::finish_prompt(std::size_t layer, std::size_t sequence, Stream stream) {
  Heads& all = heads(layer, sequence);
  if (!all.in_prompt()) return;
  if (host_prompts_)
    fail("cuda: sequence ", sequence, " holds nothing yet; upload() what the host has compressed");
  bool rated = false;
  const std::vector<std::size_t> each = capacities(layer, all, rated, stream);
  all.compress(division(layer, all, each), rated, stream);
  scratch_->reserve(all.most());
}

// Bounded mode: a prompt goes on with heads at their capacities.
template <class P>
void KvCache<P>::fit_to_budget(std::size_t layer, Heads& all, Stream stream) {
  bool rated = false;
  const std::vector<std::size_t> each = capacities(layer, all, rated, stream);
  all.fit(division(layer, all, each), stream);
}

template <class P>
void KvCache<P>::put(std::size_t layer, std::size_t sequence, std::span<const HeadCopy> from, Stream stream) {
  Heads& all = heads(layer, sequence);
  if (from.size() != geometry().kv_heads)
    fail("put: expected ", geometry().kv_heads, " heads, got ", from.size());
  for (const HeadCopy& head : from) detail::check_head(head, *parts_);
  all.put(from, stream);
  scratch_->reserve(all.most());
}

template <class P>
void KvCache<P>::upload(std::size_t sequence, zeromerge::AnyCache& from, std::size_t from_sequence,
                        Stream stream) {
  const Geometry& g = from.geometry();
  if (!g.shapes.empty()) fail("upload: the host's layers have different shapes, those of a device one");
  if (g.layers != geometry().layers || g.kv_heads != geometry().kv_heads ||
      g.query_heads != geometry().query_heads || g.head_dim != geometry().head_dim)
    fail("upload: the host's cache has ", g.layers, " layers of ", g.query_heads, " query heads, ",
         g.kv_heads, " kv heads of ", g.head_dim, ", this one ", geometry().layers, " of ",
         geometry().query_heads, ", ", geometry().kv_heads, " of ", geometry().head_dim);
  std::vector<std::vector<HeadCopy>> layers;  // all can be taken before the first one is
  for (std::size_t l = 0; l < g.layers; ++l) {
    layers.push_back(heads_of(from.layer(l, from_sequence), geometry()));
    for (const HeadCopy& head : layers[l]) detail::check_head(head, *parts_);
  }
  for (std::size_t l = 0; l < g.layers; ++l) put(l, sequence, layers[l], stream);
}

template <class P>
Checkpoint KvCache<P>::checkpoint(std::size_t sequence, Stream stream) {
  std::vector<Heads::Snapshot> layers;
  for (std::size_t l = 0; l < geometry().layers; ++l) layers.push_back(heads(l, sequence).snapshot(stream));
  return {parts_.get(), std::move(layers)};
}

template <class P>
void KvCache<P>::rollback(const Checkpoint& checkpoint, std::size_t sequence, Stream stream) {
  (void)heads(0, sequence);  // the range
  if (checkpoint.cache_ != parts_.get()) fail("rollback: the checkpoint is of another cache");
  for (std::size_t l = 0; l < geometry().layers; ++l) {
    heads(l, sequence).restore(checkpoint.layers_[l], stream);
    scratch_->reserve(heads(l, sequence).most());
  }
}

}  // namespace zeromerge::cuda
