/* main, and nothing else, so that tests and fuzz targets can link everything under it. */
#include "cli/program.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
