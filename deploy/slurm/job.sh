# Functions of the job scripts beside this file, which read it. Bash 4.4 or later.
set -euo pipefail

forget_inherited() {  # variables of a job that this one was submitted from: Slurm sets its own, but takes none away
    local record
    record=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed '/^$/q') || true
    [[ $record == "JobId=$SLURM_JOB_ID "* ]] || return 0
    [[ $record == *ArrayTaskId=* ]] || unset "${!SLURM_ARRAY_@}"
    [[ $record =~ gres[:/]gpu ]] || unset "${!SLURM_GPUS@}"
    [[ $record != *MinMemoryCPU=* ]] || unset SLURM_MEM_PER_NODE
    [[ $record != *MinMemoryNode=* ]] || unset SLURM_MEM_PER_CPU
    [[ ${SLURM_CPU_BIND:-} != *mask_cpu:* ]] || unset "${!SLURM_CPU_BIND@}"
}
forget_inherited
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
work='' step='' alarm='' at_walltime=''

say() { printf '%s %s job %s: %s\n' "$(date -u +%FT%TZ)" "$(hostname -s)" "$job" "$*" >&2; }

seconds() {  # [D-][H:]M:S, as squeue writes it, in seconds
    [[ $1 =~ ^(([0-9]+)-)?(([0-9]+):)?([0-9]+):([0-9]+)$ ]] || return 1
    local days=${BASH_REMATCH[2]:-0} hours=${BASH_REMATCH[4]:-0}
    echo $((((10#$days * 24 + 10#$hours) * 60 + 10#${BASH_REMATCH[5]}) * 60 + 10#${BASH_REMATCH[6]}))
}

stop_work() {  # srun kills its tasks where it is stopped itself: they get the signal from Slurm
    if [ -n "$step" ]; then scancel --quiet --signal=TERM "$step"; else kill -TERM "$work"; fi 2>/dev/null || true
}

on_warning() {  # USR1 comes two minutes or more before the walltime; of a short one that is too early
    local left limit grace
    read -r left limit < <(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%L %l') || true
    left=$(seconds "${left:-0}" || echo 0) limit=$(seconds "${limit:-0}" || echo 0)
    grace=$((limit / 4 < 120 ? limit / 4 : 120))
    if ((left > grace)); then
        (
            trap 'kill "$!"; exit' TERM
            sleep $((left - grace)) &
            wait "$!" && kill -USR1 $$
        ) &
        alarm=$!
        return 0
    fi
    at_walltime=yes
    say "$left s are left of the walltime: stopping"
    [ -z "$work" ] || stop_work
}
trap on_warning USR1  # at once: with a short walltime the signal comes in the first seconds

run() {  # run a command; stop it before the walltime. Its exit status is that of this function.
    local status
    trap stop_work TERM INT
    say "$(astroml-plugin --version), start ${SLURM_RESTART_COUNT:-0}: ${what:-${*:1:2}}"
    "$@" &
    work=$!
    [ -z "$at_walltime" ] || stop_work
    while true; do  # a signal ends wait, too
        status=0
        wait "$work" || status=$?
        kill -0 "$work" 2>/dev/null || break
    done
    [ -z "$alarm" ] || kill -TERM "$alarm" 2>/dev/null || true
    say "ended with status $status"
    return "$status"
}

leave() {  # end the job with a status; where the walltime stopped it, put it back in the queue first
    trap - TERM
    [ -z "${folder:-}" ] || rm -rf "$folder"
    if [ -n "$at_walltime" ] && [ "$1" != 0 ]; then
        if ((${SLURM_RESTART_COUNT:-0} >= ${ASTROML_REQUEUES:-100})); then
            say "it was started ${SLURM_RESTART_COUNT:-0} times: not again (ASTROML_REQUEUES)"
        else
            say "back into the queue"  # Slurm ends this script at once
            if scontrol requeue "$SLURM_JOB_ID"; then sleep 60; else say "that failed: submit it again, finished work is kept"; fi
        fi
    fi
    exit "$1"
}

open_folder() {  # a folder that all nodes see and only this user may enter
    folder=$(mktemp --directory "${ASTROML_JOB_FOLDER:-$SLURM_SUBMIT_DIR}/.astroml-$SLURM_JOB_ID-XXXXXX")
    trap 'rm -rf "$folder"' EXIT
}

shown() {  # lines of Dask's processes while there is work: when they are ended, they complain of each other
    local line
    while IFS= read -r line; do [ ! -e "$folder/working" ] || printf '%s\n' "$line" >&2; done
}

dask_job() {  # dask_job WORKER_COMMAND... -- VERB...: a verb with a Dask worker command on every node
    local worker=() scheduler workers watcher file address status=0 role
    while [ "$1" != -- ]; do worker+=("$1") && shift; done
    shift
    open_folder
    file=$folder/scheduler.json
    python -m astroml_plugin.compute.cluster.job_credentials dask "$folder"
    export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$folder/ca.pem
    for role in SCHEDULER WORKER CLIENT; do
        export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$folder/cert.pem" "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$folder/key.pem"
    done
    export DASK_DISTRIBUTED__DASHBOARD__LINK='http://127.0.0.1:{port}/status'
    export DASK_LOGGING__DISTRIBUTED=${DASK_LOGGING__DISTRIBUTED:-warning}

    touch "$folder/working"
    dask scheduler --scheduler-file "$file" --protocol tls --port 0 --dashboard-address 127.0.0.1:0 > >(shown) 2>&1 &
    scheduler=$!
    until [ -s "$file" ]; do
        kill -0 "$scheduler" 2>/dev/null || { say "the Dask scheduler ended before it could be reached"; exit 1; }
        sleep 1
    done
    address=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$file")
    srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        "${worker[@]}" "$address" --protocol tls --dashboard-address 127.0.0.1:0 --memory-limit 0 --death-timeout 120 \
        --preload astroml_plugin.preload --workers-per-host "${workers_per_host:-1}" > >(shown) 2>&1 &
    workers=$!
    (
        while kill -0 "$workers" 2>/dev/null; do sleep 5; done
        say "the workers of all nodes have ended"
        kill -TERM $$
    ) &
    watcher=$!

    run astroml-plugin "$@" --scheduler "$address" --worker-timeout "${ASTROML_WORKER_TIMEOUT:-600}" || status=$?
    kill "$watcher" 2>/dev/null || true
    rm -f "$folder/working"
    if [ -z "$at_walltime" ]; then  # there Slurm ends them, and seconds count
        scancel --quiet --signal=INT "$SLURM_JOB_ID.0" 2>/dev/null || true
        wait "$workers" || true
        kill -TERM "$scheduler" 2>/dev/null || true
        wait "$scheduler" || true
    fi
    leave "$status"
}

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

train_job() {  # train with the processes of all nodes together: one per GPU, else one per node
    local status=0 port what='astroml-plugin train'
    step=$SLURM_JOB_ID.0
    port=$(free_port)
    run srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        python -m torch.distributed.run --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
        --rdzv-backend c10d --rdzv-endpoint "$(hostname):$port" --rdzv-id "$SLURM_JOB_ID" \
        --module workflows.cli train "$@" || status=$?
    leave "$status"
}

search_job() {  # search with a Ray of all nodes, by TLS, which only this job's certificates and token open
    local status=0 head others='' port address signed=(python -m astroml_plugin.compute.cluster.job_credentials node)
    open_folder
    python -m astroml_plugin.compute.cluster.job_credentials authority "$folder"
    eval "$("${signed[@]}" "$folder")"
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/token"
    chmod 600 "$folder/token"
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token RAY_USAGE_STATS_ENABLED=0
    export RAY_raylet_start_wait_time_s=${RAY_raylet_start_wait_time_s:-300}  # its own minute is short on a busy machine
    port=$(free_port)
    address=$(python -c 'from ray.util import get_node_ip_address as ip; print(ip())'):$port
    local each=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)

    ray start --head --port="$port" --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" "${each[@]}" > "$folder/ray.log" 2>&1 &
    head=$!
    until ray status --address "$address" > /dev/null 2>&1; do
        kill -0 "$head" 2>/dev/null || { cat "$folder/ray.log" >&2; say "Ray ended before it could be reached"; exit 1; }
        sleep 1
    done
    if ((SLURM_JOB_NUM_NODES > 1)); then
        srun --relative=1 --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 \
            --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
            "${signed[@]}" "$folder" ray start --address "$address" "${each[@]}" > "$folder/nodes.log" 2>&1 &
        others=$!
        nodes_of_ray "$address" || { cat "$folder/nodes.log" >&2; say "not all nodes joined Ray; going on with those that did"; }
    fi
    run astroml-plugin search "$@" --ray-address "$address" || status=$?
    if [ -z "$at_walltime" ]; then
        scancel --quiet --signal=INT "$SLURM_JOB_ID.0" 2>/dev/null || true
        kill -TERM "$head" 2>/dev/null || true
        wait $others "$head" || true
    fi
    rm -rf "/tmp/ray-$SLURM_JOB_ID"
    leave "$status"
}

nodes_of_ray() {  # wait until all nodes of the job have joined, for two minutes
    local end=$((SECONDS + 120))
    while ((SECONDS < end)); do
        [ "$(ray status --address "$1" 2>/dev/null | grep -c " node_")" -ge "$SLURM_JOB_NUM_NODES" ] && return 0
        sleep 2
    done
    return 1
}
