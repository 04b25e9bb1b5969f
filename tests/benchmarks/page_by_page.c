/* Reads a dump page by page, as programs that are made with libkdumpfile do. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include <libkdumpfile/kdumpfile.h>

enum { PAGE_SIZE = 4096 };

int main(int argc, char **argv)
{
	static char page[PAGE_SIZE];

	if (argc != 3) {
		fprintf(stderr, "usage: %s DUMP PAGES\n", argv[0]);
		return 2;
	}
	unsigned long long pages = strtoull(argv[2], NULL, 10);
	kdump_ctx_t *dump = kdump_new();
	int descriptor = open(argv[1], O_RDONLY);
	if (!dump || descriptor < 0) {
		perror(argv[1]);
		return 1;
	}
	if (kdump_set_number_attr(dump, KDUMP_ATTR_FILE_FD, descriptor) != KDUMP_OK) {
		fprintf(stderr, "%s\n", kdump_get_err(dump));
		return 1;
	}
	for (unsigned long long gfn = 0; gfn < pages; gfn++) {
		size_t length = PAGE_SIZE;
		if (kdump_read(dump, KDUMP_MACHPHYSADDR, gfn * PAGE_SIZE, page, &length) != KDUMP_OK) {
			fprintf(stderr, "page %llu: %s\n", gfn, kdump_get_err(dump));
			return 1;
		}
	}
	kdump_free(dump);
	return 0;
}
