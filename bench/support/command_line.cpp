#include "support/command_line.hpp"

#include <algorithm>
#include <iostream>
#include <iterator>

namespace bench {

void add_common(CLI::App& app, CommonOptions& options, const std::vector<Shape>& shapes) {
  std::vector<std::string> names;
  for (const Shape& shape : shapes) names.push_back(shape.text());
  app.add_option("--shape", options.shapes, "query heads/kv heads x head_dim (default: all)")
      ->check(CLI::IsMember(names))
      ->delimiter(',');
  app.add_option("--threads", options.threads, "1, 2, 4")
      ->check(CLI::IsMember({1, 2, 4}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--repetitions", options.effort.repetitions, "of each contender")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", options.effort.seconds, "of each repetition, at least")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--json", options.json, "write the rows to this file");
}

std::vector<Shape> chosen(const std::vector<Shape>& shapes, const CommonOptions& options) {
  if (options.shapes.empty()) return shapes;
  std::vector<Shape> some;
  std::copy_if(shapes.begin(), shapes.end(), std::back_inserter(some), [&](const Shape& shape) {
    return std::find(options.shapes.begin(), options.shapes.end(), shape.text()) != options.shapes.end();
  });
  return some;
}

int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run) {
  try {
    app.parse(argc, argv);
    run();
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}

}  // namespace bench
