/* SPDX-License-Identifier: Apache-2.0 -- what bus.c shows to dev.c only */
#ifndef SOSIA_BUS_INTERNAL_H
#define SOSIA_BUS_INTERNAL_H

#include "bus/bus.h"

/* Head of the list of devices, in order of registration. */
struct dev **bus_dev_list(struct bus *b);

#endif
