// How a program that measures in child processes begins and ends.
#pragma once

#include <exception>
#include <iostream>
#include <string_view>

#include "generate/error.hpp"
#include "generate/worker.hpp"

namespace generate {

// The exit code of run(argc, argv), or of the job if this process is a child: 2 for what the user can put
// right, 1 for every other failure, each told on the error stream behind the program's name.
template <class Run>
int program_main(const char* name, int argc, char** argv, const Run& run) {
  if (argc == 4 && std::string_view(argv[1]) == "--worker") return worker_main(argv[2], argv[3]);
  try {
    return run(argc, argv);
  } catch (const UsageError& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return 1;
  }
}

}  // namespace generate
