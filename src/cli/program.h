/* The program behind main: see cli.h. */
#ifndef SHOAL_CLI_PROGRAM_H
#define SHOAL_CLI_PROGRAM_H

/* Runs the command that argv[1] names; returns the exit code of the process. */
int cli_main(int argc, char **argv);

#endif
