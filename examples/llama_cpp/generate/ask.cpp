#include "generate/ask.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>
#include <string>

#include "generate/compare.hpp"
#include "generate/model.hpp"
#include "generate/progress.hpp"
#include "generate/prompt.hpp"

namespace generate {
namespace {

using nlohmann::json;

// An answer may be this many tokens longer than the right one: a blank, a word before it.
constexpr std::size_t kSlack = 2;

// A session that can go back to where it was told to remember, the plug-in's caches with it.
class Reader {
 public:
  Reader(const Model& model, const Job& job, const std::optional<Plugin>& plugin)
      : session(model, job), plugin_(plugin) {}

  void remember() {
    place_ = session.place();
    if (plugin_) plugin_->checkpoint();
  }
  void go_back() {
    if (plugin_) plugin_->rollback();
    session.return_to(place_);
  }

  Session session;

 private:
  const std::optional<Plugin>& plugin_;
  Session::Place place_;
};

void step(Session& session, llama_token token) { session.feed(std::span(&token, 1), /*want_logits=*/true); }

std::string say(Session& session, const Model& model, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < most; ++i) {
    const llama_token token = argmax(session.logits());
    if (model.ends_generation(token)) break;
    text += model.piece(token);
    if (i + 1 < most) step(session, token);
  }
  return text;
}

// Along an answer, of which all but the last token are fed.
struct Followed {
  double nll = 0.0;       // mean over its tokens
  bool is_greedy = true;  // each of them was the likeliest
};

Followed follow(Session& session, const Tokens& answer) {
  Followed f;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    if (i > 0) step(session, answer[i - 1]);
    f.nll += nll(session.logits(), answer[i]) / static_cast<double>(answer.size());
    f.is_greedy = f.is_greedy && argmax(session.logits()) == answer[i];
  }
  if (std::isnan(f.nll)) throw std::runtime_error("the run's logits are not finite");
  return f;
}

// From the place that is remembered. What would be said is known already where it is the right answer.
json answer(Reader& reader, const Model& model, const Question& q) {
  reader.session.feed_all(q.question);
  const Followed f = follow(reader.session, q.answer);
  std::string text;
  if (f.is_greedy) {
    for (const llama_token token : q.answer) text += model.piece(token);
  } else {
    reader.go_back();
    reader.session.feed_all(q.question);
    text = say(reader.session, model, q.answer.size() + kSlack);
  }
  return {{"text", text}, {"nll", f.nll}};
}

json converse(const Conversation& conversation, const Model& model, const Job& job,
              const std::optional<Plugin>& plugin, Progress& progress, std::size_t& done) {
  Reader reader(model, job, plugin);
  read_prompt(reader.session, model, conversation.context, job, plugin, {});
  json result = plugin ? cache_figures(*plugin, model) : json::object();
  reader.remember();
  json answers = json::array();
  for (std::size_t i = 0; i < conversation.questions.size(); ++i) {
    Question q = conversation.questions[i];
    if (i > 0) reader.go_back();
    if (i > 0 && job.grows) {
      Tokens next = conversation.questions[i - 1].answer;
      next.insert(next.end(), q.question.begin(), q.question.end());
      reader.session.feed_all(next);
      if (plugin) plugin->finish_prompt();
      reader.remember();
      q.question.clear();
    }
    answers.push_back(answer(reader, model, q));
    progress.update(++done);
  }
  result["answers"] = answers;
  return result;
}

}  // namespace

json run_ask(const Job& job, const std::optional<Plugin>& plugin) {
  return with_reason(plugin, [&] {
    const Model model(job.model, /*vocabulary_only=*/false);
    std::size_t questions = 0, done = 0;
    for (const Conversation& c : job.conversations) questions += c.questions.size();
    Progress progress(job.label, questions, "questions");
    json results = json::array();
    for (const Conversation& c : job.conversations)
      results.push_back(converse(c, model, job, plugin, progress, done));
    return json{{"conversations", results}};
  });
}

}  // namespace generate
