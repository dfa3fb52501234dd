// One piece of work for a child process, and how it travels there: a JSON file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace generate {

enum class Task {
  inspect,    // check the policy, turn the prompt into tokens
  tokenize,   // turn texts into tokens
  expand,     // write the copy of the model with f16 weights
  speed,      // generate and measure
  reference,  // generate and keep every row of logits
  compare,    // follow the reference's text and compare the rows
  ask,        // read contexts and answer questions about them
  heads       // read the prompt and tell what each head keeps
};
NLOHMANN_JSON_SERIALIZE_ENUM(Task, {{Task::inspect, "inspect"},
                                    {Task::tokenize, "tokenize"},
                                    {Task::expand, "expand"},
                                    {Task::speed, "speed"},
                                    {Task::reference, "reference"},
                                    {Task::compare, "compare"},
                                    {Task::ask, "ask"},
                                    {Task::heads, "heads"}})

// In tokens. What is asked may be empty: then it stands at the end of the context.
struct Question {
  std::vector<std::int32_t> question;
  std::vector<std::int32_t> answer;  // the right one
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Question, question, answer)

// A context and what is asked about it, one after another.
struct Conversation {
  std::vector<std::int32_t> context;
  std::vector<Question> questions;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Conversation, context, questions)

struct Job {
  Task task = Task::inspect;
  std::string label;  // for progress lines
  std::string model;
  std::string policy;  // empty: without the plug-in
  bool reclaim = false;
  bool flash = true;               // flash attention, f16 accumulators in llama.cpp's own
  std::string key_type = "f16";    // of llama.cpp's cells, by ggml's name
  std::string value_type = "f16";  // other than f16 only with flash attention
  bool stream = false;             // text to stdout as it comes
  bool warnings = false;
  bool heads = false;        // compare: tell what each head has kept of the prompt
  std::int32_t threads = 1;  // decode
  std::int32_t prompt_threads = 1;
  std::int32_t ctx = 0;
  std::int32_t sequences = 1;  // that may share the cells
  std::int32_t predict = 0;
  std::string prompt_file;                  // inspect
  std::vector<std::int32_t> prompt;         // the others
  std::vector<std::int32_t> continuation;   // compare; reference: empty for the likeliest tokens
  std::string logits_file;                  // reference writes, compare reads: float32 [predict][vocabulary]
  std::string output_file;                  // expand
  std::vector<std::string> texts;           // tokenize
  std::vector<Conversation> conversations;  // ask
  bool grows = false;  // ask: questions and right answers stay; else each one starts from the context
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Job, task, label, model, policy, reclaim, flash, key_type, value_type,
                                   stream, warnings, heads, threads, prompt_threads, ctx, sequences, predict,
                                   prompt_file, prompt, continuation, logits_file, output_file, texts,
                                   conversations, grows)

}  // namespace generate
